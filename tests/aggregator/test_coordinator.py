"""Rounds, refusals, stragglers and resumes, with the real coordinator and agent code."""

import shutil
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

from aggregator.audit.report_audit import audit
from aggregator.decisions.stage import Stage
from aggregator.evidence.look import look
from aggregator.federated_round import (
    abort_round,
    advance,
    close_round,
    finish_latest_report,
    merge_round,
    open_round,
    report_round,
    unreported_abort,
)
from aggregator.feed.reading import next_round, read_federation, read_report
from aggregator.report.files import read_bundle
from data_contracts.errors import FederationOperatorError, StorageError, UntrustedInputError
from data_contracts.protocol.bucket_layout import attempt_of, round_slot
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Close, RoundPlan, RoundReport, Submission, Verdict
from infra.records.record_store import write_record
from infra.signing_keys import create_key
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour


def _report(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> RoundReport:
    c = federation.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert report is not None
    return report.record


def _failed_claims(federation: SimulatedFederation, name: str) -> list[str]:
    bundle = read_bundle(federation.settings.home / "reports" / name)
    return [c.name for c in audit(bundle, federation.pinned) if c.outcome == "fail"]


def _outcomes(report: RoundReport) -> dict[str, tuple[str, str | None]]:
    return {silo.silo: (silo.outcome, silo.rule) for silo in report.silos}


def test_a_round_of_honest_silos_is_published(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    plan = federation.open()
    federation.play(plan)
    report = _report(federation, plan)
    assert report.outcome == "published"
    assert report.published_adapter is not None
    assert report.published_adapter == report.candidate_adapter
    assert {outcome for outcome, _ in _outcomes(report).values()} == {"admitted"}
    home = federation.settings.home
    assert (home / "published" / "adapter_config.json").exists()
    assert (home / "reports" / "run-1-round-0001.html").exists()
    bundle = read_bundle(home / "reports" / "run-1-round-0001.json")
    adapter = home / "published" / "adapter_model.safetensors"
    claims = audit(bundle, federation.pinned, adapter)
    assert [claim.name for claim in claims if claim.outcome == "fail"] == []
    assert [c.outcome for c in claims if c.name == "published adapter"] == ["pass"]


def test_a_second_run_leaves_the_reports_of_the_first_as_they_are(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    federation.play(federation.open())
    reports = federation.settings.home / "reports"
    first = {path: path.read_bytes() for path in reports.iterdir()}
    federation.settings = federation.settings.model_copy(update={"run": "run-2"})
    plan = federation.open()
    assert (plan.record.run, plan.record.round) == ("run-2", 1)
    federation.play(plan)
    assert {path: path.read_bytes() for path in first} == first
    assert len(list(reports.iterdir())) == 2 * len(first)
    for name in ("run-1-round-0001.json", "run-2-round-0001.json"):
        assert _failed_claims(federation, name) == []


def test_the_second_round_starts_from_the_published_adapter(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    first = federation.open(1)
    federation.play(first)
    coordinator = federation.coordinator()
    assert next_round(coordinator, read_federation(coordinator)) == 2
    second = federation.open(2)
    assert second.record.starting_adapter == _report(federation, first).published_adapter
    assert second.record.previous_digest == first.digest
    assert {plan.record.prompt_date for plan in (first, second)} == {None}, "no template asks"
    federation.play(second)
    assert _report(federation, second).outcome == "published"


def test_everybody_restarting_at_every_step_never_repeats_work(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    federation.play(plan)
    before = federation.snapshot()
    for _ in range(3):
        federation.silos_act()
        assert advance(federation.coordinator(), plan) is Stage.REPORTED
    assert federation.snapshot() == before, "a finished round that is run again writes nothing"


def test_a_failing_contract_is_a_signed_refusal_and_the_others_go_on(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(
        a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.FAILING_CONTRACT
    )
    plan = federation.open()
    federation.play(plan)
    report = _report(federation, plan)
    assert report.outcome == "published"
    assert _outcomes(report)["silo-c"] == ("refused", "verdict.licence.allowed")
    inbox = federation.inbox("silo-c").objects
    assert not [key for key in inbox if "submission" in key or key.startswith("blobs/")]


def test_a_policy_that_does_not_allow_the_plan_refuses_by_name(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    policy = federation.silos["silo-c"].home / "policy.toml"
    policy.write_text(policy.read_text().replace("max_local_steps = 10", "max_local_steps = 1"))
    plan = federation.open()
    federation.play(plan)
    assert _outcomes(_report(federation, plan))["silo-c"] == ("refused", "policy.local_steps")


def test_an_unreadable_policy_refuses_everything(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    (federation.silos["silo-c"].home / "policy.toml").unlink()
    plan = federation.open()
    federation.play(plan)
    assert _outcomes(_report(federation, plan))["silo-c"] == ("refused", "policy.unreadable")


def test_a_straggler_is_missing_after_the_deadline(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.ABSENT)
    plan = federation.open()
    stages = federation.play(plan)
    assert stages.count(Stage.COLLECTING) > 30, "it waits for the deadline"
    report = _report(federation, plan)
    assert report.outcome == "published"
    assert _outcomes(report)["silo-c"] == ("missing", None)


def test_below_quorum_aborts_and_the_next_attempt_succeeds(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.ABSENT)
    first = federation.open()
    federation.play(first)
    report = _report(federation, first)
    assert (report.outcome, report.rule) == ("aborted", "quorum.not_reached")
    assert report.published_adapter is None
    federation.silos["silo-b"].behaviour = Behaviour.HONEST
    coordinator = federation.coordinator()
    assert next_round(coordinator, read_federation(coordinator)) == 1
    second = federation.open()
    assert (second.record.round, second.record.attempt) == (1, 2)
    federation.play(second)
    assert _report(federation, second).outcome == "published"


def test_an_operator_abort_ends_the_attempt_for_everybody(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    federation.silos_act()
    abort_round(federation.coordinator(), plan, "operator.abort", "Wrong recipe.")
    federation.play(plan)
    assert _report(federation, plan).outcome == "aborted"
    submitted = [key for key in federation.inbox("silo-a").objects if "submission" in key]
    assert submitted == []


def test_an_abort_while_nobody_runs_is_reported_later(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    abort_round(federation.coordinator(), plan, "operator.abort", "Wrong recipe.")
    assert unreported_abort(federation.coordinator()) == plan
    report_round(federation.coordinator(), federation.look(plan))
    assert unreported_abort(federation.coordinator()) is None
    assert federation.open().record.attempt == 2


def test_a_worse_candidate_is_held_and_the_next_round_starts_from_before(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.UNHAPPY, b=Behaviour.UNHAPPY)
    plan = federation.open()
    federation.play(plan)
    report = _report(federation, plan)
    assert (report.outcome, report.rule) == ("held", "evaluation.mean_worse")
    assert not (federation.settings.home / "published").exists()
    assert federation.open(2).record.starting_adapter is None


def test_missing_evaluations_below_quorum_hold(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.SILENT_EVALUATOR)
    plan = federation.open()
    federation.play(plan)
    report = _report(federation, plan)
    assert (report.outcome, report.rule) == ("held", "evaluation.quorum")


def test_a_boast_about_tokens_does_not_count(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.BOASTING)
    plan = federation.open()
    federation.play(plan)
    report = _report(federation, plan)
    assert _outcomes(report)["silo-c"] == ("rejected", "submission.too_many_tokens")
    assert [silo.weight_share for silo in report.silos] == [Decimal("0.5"), Decimal("0.5"), 0]


@pytest.mark.parametrize("behaviour", [Behaviour.NOT_FINITE, Behaviour.ZERO_DELTA])
def test_a_silo_does_not_release_an_adapter_that_the_gate_would_reject(
    make_federation: MakeFederation, behaviour: Behaviour
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=behaviour)
    plan = federation.open()
    federation.play(plan)
    assert _outcomes(_report(federation, plan))["silo-c"] == ("missing", None)
    assert federation.silos["silo-c"].faults
    assert not [k for k in federation.inbox("silo-c").objects if k.startswith("blobs/")]


def test_two_submissions_in_one_slot_reject_the_silo(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    plan = federation.open()
    for _ in range(4):
        federation.silos_act()
    silo = federation.silos["silo-c"]
    released = silo.agent(FEDERATION, federation.pinned).release.outbox.released(attempt_of(plan))
    assert released.submission is not None
    other = released.submission.record.model_copy(update={"steps": 1})
    write_record(silo.inbox, round_slot(attempt_of(plan), Submission.kind), seal(other, silo.key))
    federation.play(plan)
    assert _outcomes(_report(federation, plan))["silo-c"] == ("rejected", "silo.equivocation")


def test_bytes_flipped_in_storage_reject_only_that_silo(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST)
    plan = federation.open()
    for _ in range(4):
        federation.silos_act()
    inbox = federation.inbox("silo-c").objects
    (blob,) = [key for key in inbox if key.startswith("blobs/")]
    inbox[blob] = inbox[blob][:-1] + bytes([inbox[blob][-1] ^ 1])
    federation.play(plan)
    assert _outcomes(_report(federation, plan))["silo-c"] == ("rejected", "blob.digest")
    assert _failed_claims(federation, "run-1-round-0001.json") == []


def test_a_silo_added_in_mid_round_changes_nothing_about_it(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    for _ in range(4):
        federation.silos_act()
    close_round(federation.coordinator(), federation.look(plan))
    federation.replace_key("silo-b")
    federation.play(plan)
    report = _report(federation, plan)
    assert report.outcome == "held", "silo-b's new key cannot evaluate a round of the old one"
    assert _outcomes(report)["silo-b"] == ("admitted", None)
    assert _failed_claims(federation, "run-1-round-0001.json") == []


def test_a_record_of_another_round_in_a_slot_does_not_frame_its_silo(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    first = federation.open(1)
    federation.play(first)
    inbox = federation.inbox("silo-b").objects
    old = {key: data for key, data in inbox.items() if key.startswith("rounds/run-1/0001/")}
    second = federation.open(2)
    inbox.update({key.replace("/0001/", "/0002/"): data for key, data in old.items()})
    federation.play(second)
    assert _outcomes(_report(federation, second))["silo-b"] == ("admitted", None)


@pytest.mark.long
def test_an_adapter_with_absurd_values_is_rejected(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HUGE)
    plan = federation.open()
    federation.play(plan)
    report = _report(federation, plan)
    assert report.outcome == "published"
    assert _outcomes(report)["silo-c"] == ("missing", None), "its own gate stops it"
    assert any("at most" in fault for fault in federation.silos["silo-c"].faults)


def test_files_that_a_killed_coordinator_did_not_write_come_with_the_next_run(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    federation.play(federation.open())
    home = federation.settings.home
    for name in ("reports", "published"):
        shutil.rmtree(home / name)
    finish_latest_report(federation.coordinator())
    assert (home / "reports" / "run-1-round-0001.html").exists()
    assert (home / "published" / "adapter_model.safetensors").exists()
    assert _failed_claims(federation, "run-1-round-0001.json") == []


def test_an_abort_after_the_decision_leaves_the_published_adapter_alone(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    while look(federation.coordinator(), plan).stage is not Stage.REPORTING:
        federation.silos_act()
        advance(federation.coordinator(), plan)
    abort_round(federation.coordinator(), plan, "operator.abort", "Changed my mind.")
    federation.play(plan)
    assert _report(federation, plan).outcome == "aborted"
    assert not (federation.settings.home / "published").exists()


def test_a_close_record_that_was_claimed_is_adopted_by_a_second_coordinator(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    for _ in range(4):
        federation.silos_act()
    first = close_round(federation.coordinator(), federation.look(plan))
    federation.clock.sleep(60)
    slot = round_slot(attempt_of(plan), Close.kind)
    del federation.plans.objects[f"{slot}{first.digest}.json"]
    second = close_round(federation.coordinator(), federation.look(plan))
    assert second.digest == first.digest, "a later clock must not make a second close record"


def test_a_merge_after_a_kill_gives_the_same_bytes(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    for _ in range(4):
        federation.silos_act()
    close_round(federation.coordinator(), federation.look(plan))

    class KilledError(Exception):
        pass

    def die(done: int, _total: int) -> None:
        if done == 3:
            raise KilledError

    with pytest.raises(KilledError):
        merge_round(federation.coordinator(), federation.look(plan), die)
    assert not [key for key in federation.plans.objects if "/candidate/" in key]
    resumed = merge_round(federation.coordinator(), federation.look(plan))
    candidates = federation.settings.home / "workspace" / "candidates"
    for path in candidates.iterdir():
        path.unlink()
    slot = round_slot(attempt_of(plan), "candidate")
    for key in [key for key in federation.plans.objects if key.startswith(slot)]:
        del federation.plans.objects[key]
    again = merge_round(federation.coordinator(), federation.look(plan))
    assert again.record.adapter == resumed.record.adapter


def test_what_a_silo_writes_after_the_close_changes_nothing(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(
        a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.FAILING_CONTRACT
    )
    plan = federation.open()
    for _ in range(4):
        federation.silos_act()
    close_round(federation.coordinator(), federation.look(plan))
    for name in ("silo-b", "silo-c"):
        silo = federation.silos[name]
        verdict = silo.agent(FEDERATION, federation.pinned).release.outbox.released(
            attempt_of(plan)
        )
        assert verdict.verdict is not None
        second = verdict.verdict.record.model_copy(update={"findings_digest": "0" * 64})
        slot = round_slot(attempt_of(plan), Verdict.kind)
        write_record(silo.inbox, slot, seal(second, silo.key))
    federation.play(plan)
    outcomes = _outcomes(_report(federation, plan))
    assert outcomes["silo-b"] == ("admitted", None)
    assert outcomes["silo-c"] == ("refused", "verdict.licence.allowed")
    assert _failed_claims(federation, "run-1-round-0001.json") == []


def test_a_stranger_with_the_storage_credential_cannot_plan(
    make_federation: MakeFederation, tmp_path: Path
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    stranger = create_key(tmp_path / "stranger.pem")
    with pytest.raises(FederationOperatorError, match="coordinator key"):
        open_round(federation.coordinator(stranger), 1)


def test_a_silo_ignores_a_feed_that_was_rolled_back(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    first = federation.open(1)
    federation.play(first)
    old = dict(federation.plans.objects)
    second = federation.open(2)
    federation.silos_act()
    federation.plans.objects.clear()
    federation.plans.objects.update(old)
    silo = federation.silos["silo-a"]
    silo.act(FEDERATION, federation.pinned)
    assert "rolled back" in silo.faults[-1]
    assert second.record.feed_number == 2


def test_a_storage_fault_is_not_taken_for_an_absent_silo(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    for _ in range(4):
        federation.silos_act()

    def fail(operation: str, key: str) -> None:
        raise StorageError("inbox", expected="an answer", found="503", action="try again")

    federation.inbox("silo-b").before = fail
    with pytest.raises(StorageError):
        close_round(federation.coordinator(), federation.look(plan))
    federation.inbox("silo-b").before = None
    federation.play(plan)
    assert _outcomes(_report(federation, plan))["silo-b"] == ("admitted", None)


def test_a_plan_for_another_federation_is_never_followed(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    foreign = plan.record.model_copy(update={"federation": "elsewhere"})
    for key in [key for key in federation.plans.objects if key.startswith("feed/")]:
        del federation.plans.objects[key]
    sealed = seal(foreign, federation.key)
    write_record(federation.plans, "feed/00000001/", sealed)
    silo = federation.silos["silo-a"]
    silo.act(FEDERATION, federation.pinned)
    assert silo.inbox.list_keys("rounds/") == []


def test_a_tampered_plan_is_not_believed(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    (key,) = [k for k in federation.plans.objects if k.startswith("feed/") and plan.digest in k]
    data = federation.plans.objects[key]
    federation.plans.objects[key] = data.replace(b"A", b"B", 1)
    silo = federation.silos["silo-a"]
    assert silo.act(FEDERATION, federation.pinned) is None
    assert silo.inbox.list_keys("rounds/") == []


def test_two_plans_in_one_feed_slot_halt_the_silo(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    other = plan.record.model_copy(update={"purpose": "something else"})
    write_record(federation.plans, "feed/00000001/", seal(other, federation.key))
    agent = federation.silos["silo-a"].agent(FEDERATION, federation.pinned)
    from silo_agent.agent import poll_once

    with pytest.raises(UntrustedInputError, match="feed entry 1"):
        poll_once(agent)


def test_a_step_works_on_the_reading_by_which_it_was_found_to_be_due(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    plan = federation.open()
    federation.silos_act(4)
    counts: Counter[str] = Counter()
    federation.inbox("silo-a").before = lambda operation, _key: counts.update([operation])
    for due in (Stage.CLOSING, Stage.MERGING):
        counts.clear()
        assert federation.look(plan).stage is due
        looked = counts["list_keys"]
        counts.clear()
        assert advance(federation.coordinator(), plan) is due
        assert counts["list_keys"] == looked > 0
