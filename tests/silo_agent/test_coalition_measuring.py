"""What a silo measures for a contribution request, and when nothing of it leaves."""

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from aggregator.contribution.by_silos import Question, contributions_by_silos
from aggregator.contribution.closed_round import closed_round
from aggregator.settings.merge import MergeSection
from data_contracts.dataset.contract.terms import EGRESS
from data_contracts.errors import StorageError
from data_contracts.protocol.artifact import artifact_of_bytes
from data_contracts.protocol.bucket_layout import attempt_of, blob_key, round_slot
from data_contracts.protocol.envelope import Verified, seal, verify
from data_contracts.protocol.records import CoalitionLosses, ContributionRequest, RoundPlan
from data_contracts.protocol.records.contribution_request import CoalitionAdapter
from data_contracts.protocol.wire_types import decimal_from_float
from infra.records.record_store import write_record
from silo_agent.collaborators import GlobalAdapter
from silo_agent.contribution.coalition_measuring import BATCH_COALITIONS, LOSS_DECIMALS
from silo_agent.personal.own_factors import measured_with
from silo_agent.release.kill_switch import KillSwitch
from silo_agent.release.outbox import Released
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.steps.own_attempt import Step
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour, SimulatedSilo

HOUR = timedelta(hours=1)
LETTERS = "abcde"


def played(federation: SimulatedFederation) -> Verified[RoundPlan]:
    """A reported round whose silos all accepted while their policies shared."""
    for silo in federation.silos:
        federation.share(silo)
    plan = federation.open()
    federation.play(plan)
    return plan


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)


@pytest.fixture
def plan(federation: SimulatedFederation) -> Verified[RoundPlan]:
    return played(federation)


def ask(federation: SimulatedFederation, *, exact: bool = False) -> Verified[ContributionRequest]:
    """The coordinator's request, as it lies in storage."""
    contributions_by_silos(federation.coordinator(), Question(1, exact, answer_within=HOUR))
    (envelope,) = (
        data
        for key, data in federation.plans.objects.items()
        if "/contribution-request/" in key and key.endswith(".json")
    )
    return verify(envelope, ContributionRequest, {federation.key.public_key_hex})


def publish(
    federation: SimulatedFederation, plan: Verified[RoundPlan], made: ContributionRequest
) -> None:
    slot = round_slot(attempt_of(plan), ContributionRequest.kind)
    write_record(federation.plans, slot, seal(made, federation.key))


def act(federation: SimulatedFederation, silo: str) -> Step | None:
    return federation.silos[silo].act(FEDERATION, federation.pinned)


def released(federation: SimulatedFederation, silo: str, plan: Verified[RoundPlan]) -> Released:
    agent = federation.silos[silo].agent(FEDERATION, federation.pinned)
    return agent.release.outbox.released(attempt_of(plan))


def has_answered(silo: SimulatedSilo) -> bool:
    return "coalition-losses" in silo.kinds()


def test_where_silos_share_a_each_measures_with_its_own_b(
    make_federation: MakeFederation, tmp_path: Path
) -> None:
    federation = make_federation(
        {"merge": MergeSection(rule="shared_a")}, a=Behaviour.HONEST, b=Behaviour.HONEST
    )
    plan = played(federation)
    request = ask(federation, exact=True)
    assert act(federation, "silo-b") is Step.MEASURED
    silo, done = federation.silos["silo-b"], released(federation, "silo-b", plan)
    assert done.coalition_losses is not None and done.verdict is not None
    adapters = []
    for place, part in enumerate(request.record.coalitions):
        path = None if part.adapter is None else tmp_path / f"{place}.safetensors"
        if path is not None and part.adapter is not None:
            path.write_bytes(federation.plans.objects[blob_key(part.adapter.digest)])
        into = tmp_path / f"{place}-with-b.safetensors"
        adapters.append(measured_with(silo.home, plan.record, GlobalAdapter(path), into))
    agent = silo.agent(FEDERATION, federation.pinned)
    report = StatusReporter(None, federation.clock, agent.config, plan)
    expected = agent.trainer.measure(plan.record, done.verdict.record, adapters, report)
    losses = tuple(decimal_from_float(loss.nats, LOSS_DECIMALS) for loss in expected)
    assert done.coalition_losses.record.losses == losses
    assert len(set(losses)) == len(request.record.coalitions) == 4
    assert not (silo.home / "coalitions").exists()


def test_every_coalition_is_measured_in_the_order_of_the_request(
    make_federation: MakeFederation, tmp_path: Path
) -> None:
    federation = make_federation(**dict.fromkeys(LETTERS, Behaviour.HONEST))
    plan = played(federation)
    request = ask(federation, exact=True)
    assert len(request.record.coalitions) == 32 > BATCH_COALITIONS
    assert act(federation, "silo-b") is Step.MEASURED
    answer = released(federation, "silo-b", plan).coalition_losses
    assert answer is not None
    assert answer.record.request_digest == request.digest
    paths = []
    for place, part in enumerate(request.record.coalitions):
        path = None if part.adapter is None else tmp_path / f"{place}.safetensors"
        if path is not None and part.adapter is not None:
            path.write_bytes(federation.plans.objects[blob_key(part.adapter.digest)])
        paths.append(path)
    agent = federation.silos["silo-b"].agent(FEDERATION, federation.pinned)
    done = released(federation, "silo-b", plan)
    assert done.verdict is not None
    adapters = [GlobalAdapter(path) for path in paths]
    report = StatusReporter(None, federation.clock, agent.config, plan)
    expected = agent.trainer.measure(plan.record, done.verdict.record, adapters, report)
    losses = tuple(decimal_from_float(loss.nats, LOSS_DECIMALS) for loss in expected)
    assert answer.record.losses == losses
    assert {answer.record.tokens} == {loss.tokens for loss in expected}
    assert len(set(losses)) == 32
    assert not (federation.silos["silo-b"].home / "coalitions").exists()


def test_a_request_is_answered_once(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    assert act(federation, "silo-a") is Step.FINISHED, "nobody has asked"
    ask(federation)
    assert [act(federation, "silo-a") for _ in range(3)] == [
        Step.MEASURED,
        Step.FINISHED,
        Step.FINISHED,
    ]
    slot = round_slot(attempt_of(plan), CoalitionLosses.kind)
    assert len(federation.inbox("silo-a").list_keys(slot)) == 1


def test_an_acceptance_says_what_the_policy_says(make_federation: MakeFederation) -> None:
    federation = make_federation(a=Behaviour.HONEST, b=Behaviour.HONEST)
    federation.share("silo-b")
    plan = federation.open()
    federation.silos_act()
    acceptances = [released(federation, silo, plan).acceptance for silo in federation.silos]
    assert [a.record.shares_individual_delta for a in acceptances if a is not None] == [False, True]


def test_a_silo_that_accepted_without_sharing_does_not_look_at_requests(
    federation: SimulatedFederation,
) -> None:
    """Not even one that the coordinator should never have made."""
    federation.share("silo-b")
    plan = federation.open()
    federation.play(plan)
    federation.share("silo-a")
    closed = closed_round(federation.coordinator(), 1)
    now = federation.clock.now()
    made = ContributionRequest(
        federation=FEDERATION,
        issued_at=now,
        run=plan.record.run,
        round=1,
        attempt=1,
        plan_digest=plan.digest,
        close_digest=closed.close.digest,
        silos=closed.silos,
        coalitions=(CoalitionAdapter(members="00", adapter=None),),
        answer_by=now + HOUR,
    )
    publish(federation, plan, made)
    assert act(federation, "silo-a") is Step.FINISHED
    assert act(federation, "silo-b") is Step.MEASURED, "as it would answer any request"


def not_shared(federation: SimulatedFederation) -> None:
    federation.share("silo-a", shares=False)


def unreadable(federation: SimulatedFederation) -> None:
    (federation.silos["silo-a"].home / "policy.toml").write_text("version = ")


def no_losses(federation: SimulatedFederation) -> None:
    kept_in = tuple(item for item in EGRESS if item != "losses")
    federation.silos["silo-a"].contract.egress = kept_in


def withdrawn(federation: SimulatedFederation) -> None:
    federation.silos["silo-a"].contract.agreed_with = ""


def too_late(federation: SimulatedFederation) -> None:
    federation.clock.sleep(HOUR.total_seconds())


Change = Callable[[SimulatedFederation], None]
CHANGES: list[tuple[Change, str]] = [
    (not_shared, "does not share its adapter by itself"),
    (unreadable, "does not share its adapter by itself"),
    (no_losses, "The data contract does not let this out"),
    (withdrawn, "The signed contract that the plan names is not there any more"),
    (too_late, "The time to answer the request is over"),
]


@pytest.mark.parametrize(("change", "why"), CHANGES)
def test_no_losses_leave_where_something_has_changed_since_the_acceptance(
    federation: SimulatedFederation,
    plan: Verified[RoundPlan],
    change: Change,
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ask(federation)
    change(federation)
    silo = federation.silos["silo-a"]
    before = dict(federation.inbox("silo-a").objects)
    with caplog.at_level(logging.WARNING):
        assert [act(federation, "silo-a") for _ in range(3)] == [Step.FINISHED] * 3
    assert federation.inbox("silo-a").objects == before
    said = [record.message for record in caplog.records if "coalitions" in record.message]
    assert len(said) == 1 and why in said[0], "said once, not at every poll"
    assert silo.faults == []


@pytest.mark.parametrize("change", [change for change, _ in CHANGES])
def test_the_doors_are_asked_again_after_measuring(
    federation: SimulatedFederation, plan: Verified[RoundPlan], change: Change
) -> None:
    ask(federation)
    downloads: list[str] = []

    def while_fetching(operation: str, key: str) -> None:
        if operation == "download_blob" and not downloads:
            downloads.append(key)
            change(federation)

    federation.plans.before = while_fetching
    assert act(federation, "silo-a") is Step.FINISHED
    assert downloads, "measuring had begun"
    assert not has_answered(federation.silos["silo-a"])


def test_the_kill_switch_keeps_losses_in(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    ask(federation)
    KillSwitch(federation.silos["silo-a"].home).turn_on()
    assert act(federation, "silo-a") is Step.FINISHED
    assert not has_answered(federation.silos["silo-a"])


def test_a_silo_that_was_not_admitted_does_not_answer(make_federation: MakeFederation) -> None:
    federation = make_federation(
        a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.INCOMPLETE_VERDICT
    )
    played(federation)
    ask(federation)
    federation.silos_act(2)
    answered = [silo.name for silo in federation.silos.values() if has_answered(silo)]
    assert answered == ["silo-a", "silo-b"]
    assert {"submission", "evaluation"} <= federation.silos["silo-c"].kinds()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"close_digest": "0" * 64}, "bound to the close record"),
        ({"silos": ("silo-a", "silo-x")}, "bound to the admitted silos"),
    ],
)
def test_a_request_about_another_close_is_not_answered(
    federation: SimulatedFederation,
    plan: Verified[RoundPlan],
    changes: dict[str, object],
    why: str,
) -> None:
    made = ask(federation)
    for key in [key for key in federation.plans.objects if "/contribution-request/" in key]:
        del federation.plans.objects[key]
    publish(federation, plan, made.record.model_copy(update=changes))
    assert act(federation, "silo-a") is None
    assert why in federation.silos["silo-a"].faults[-1]
    assert not has_answered(federation.silos["silo-a"])


def test_two_requests_halt_the_silo(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    made = ask(federation)
    later = made.record.answer_by + HOUR
    publish(federation, plan, made.record.model_copy(update={"answer_by": later}))
    assert act(federation, "silo-a") is None
    assert "one record signed by the coordinator" in federation.silos["silo-a"].faults[-1]
    assert not has_answered(federation.silos["silo-a"])


def test_an_adapter_that_the_gate_refuses_is_not_measured(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    made = ask(federation)
    garbage = b"no safetensors"
    ref = artifact_of_bytes(garbage)
    federation.plans.objects[blob_key(ref.digest)] = garbage
    first, *rest = made.record.coalitions
    parts = (first.model_copy(update={"adapter": ref}), *rest)
    for key in [key for key in federation.plans.objects if "/contribution-request/" in key]:
        del federation.plans.objects[key]
    publish(federation, plan, made.record.model_copy(update={"coalitions": parts}))
    assert act(federation, "silo-a") is None
    assert "adapter" in federation.silos["silo-a"].faults[-1]
    assert not has_answered(federation.silos["silo-a"])


def inbox_down(operation: str, key: str) -> None:
    raise StorageError("inbox", expected="an answer", found="503", action="try again")


def test_an_answer_that_never_arrived_is_sent_later(
    federation: SimulatedFederation, plan: Verified[RoundPlan]
) -> None:
    ask(federation)
    federation.inbox("silo-a").before = inbox_down
    assert act(federation, "silo-a") is None
    federation.inbox("silo-a").before = None
    assert act(federation, "silo-a") is Step.FINISHED
    assert has_answered(federation.silos["silo-a"])


@pytest.mark.parametrize("change", [not_shared, unreadable, no_losses, withdrawn])
def test_an_answer_that_never_arrived_asks_its_doors_again(
    federation: SimulatedFederation, plan: Verified[RoundPlan], change: Change
) -> None:
    ask(federation)
    federation.inbox("silo-a").before = inbox_down
    act(federation, "silo-a")
    assert released(federation, "silo-a", plan).coalition_losses is not None
    federation.inbox("silo-a").before = None
    change(federation)
    assert act(federation, "silo-a") is Step.FINISHED
    assert released(federation, "silo-a", plan).coalition_losses is None
    assert not has_answered(federation.silos["silo-a"])
