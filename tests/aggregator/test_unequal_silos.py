"""One round of silos that cannot do the same: policies, gate, weights, report and audit."""

from decimal import Decimal
from typing import Any

import pytest

from aggregator.attempt import SiloRecords
from aggregator.audit.report_audit import audit
from aggregator.evidence.reader import read_status
from aggregator.feed.reading import read_federation, read_report
from aggregator.report.bundle import Bundle, bundle_of
from aggregator.report.files import read_bundle
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Close, Refusal, RoundPlan, RoundReport
from data_contracts.protocol.records.close import Admitted
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from infra.records.newest_records import newest_records
from silo_agent.config import TrainingSection
from tests.aggregator.federation_samples import COHORT, Federation, allowing, federation, key
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

STEPS, LEAST = 6, 3
STEP_TOKENS = 2 * 32
MACHINES: dict[str, dict[str, Any]] = {
    "silo-a": {"ranks": 2, "threads_per_rank": 2, "zero_stage": 2},
    "silo-b": {"ranks": 1, "zero_stage": 3, "gradient_checkpointing": True, "steps_at_most": 3},
    "silo-c": {"ranks": 1, "zero_stage": "auto", "micro_batch": "auto", "steps_at_most": 2},
    "silo-d": {"ranks": 1, "device": "cuda", "zero_stage": 3, "offload": "cpu"},
    "silo-e": {"ranks": 3},
    "silo-f": {"ranks": 1, "device": "cuda", "steps_at_most": 99},
}
"""Two that count, three that cannot, or do not, do what is asked, and one that does it all."""


@pytest.fixture
def unequal(make_federation: MakeFederation) -> SimulatedFederation:
    behaviours = dict.fromkeys("abcef", Behaviour.HONEST) | {"d": Behaviour.HASTY}
    federation = make_federation({"steps": STEPS, "least_steps": LEAST}, **behaviours)
    for name, settings in MACHINES.items():
        federation.silos[name].training = TrainingSection(**settings)
    return federation


def report_of(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> RoundReport:
    c = federation.coordinator()
    found = read_report(c, read_federation(c), plan)
    assert found is not None
    return found.record


def test_a_round_of_silos_that_cannot_do_the_same(unequal: SimulatedFederation) -> None:
    plan = unequal.open()
    assert (plan.record.recipe.local_steps, plan.record.recipe.least_steps) == (STEPS, LEAST)
    unequal.play(plan)
    report = report_of(unequal, plan)
    assert report.outcome == "published"
    assert {silo.silo: (silo.outcome, silo.rule) for silo in report.silos} == {
        "silo-a": ("admitted", None),
        "silo-b": ("admitted", None),
        "silo-c": ("refused", "policy.least_steps"),
        "silo-d": ("rejected", "submission.too_few_steps"),
        "silo-e": ("refused", "policy.ranks"),
        "silo-f": ("admitted", None),
    }
    said = {silo.silo: (silo.steps, silo.tokens, silo.weight_share) for silo in report.silos}
    assert said["silo-a"] == said["silo-f"] == (STEPS, STEPS * STEP_TOKENS, Decimal("0.4"))
    assert said["silo-b"] == (LEAST, LEAST * STEP_TOKENS, Decimal("0.2"))
    assert said["silo-c"] == said["silo-e"] == (None, 0, Decimal(0))
    assert said["silo-d"] == (1, 6 * STEP_TOKENS, Decimal(0)), "as it said, whatever that counts"
    page = unequal.settings.home / "reports" / "run-1-round-0001.html"
    claims = audit(read_bundle(page), unequal.pinned)
    assert [claim.name for claim in claims if claim.outcome == "fail"] == []


def test_a_silo_that_cannot_do_the_least_says_so_with_the_numbers_and_trains_nothing(
    unequal: SimulatedFederation,
) -> None:
    plan = unequal.open()
    unequal.silos_act(times=4)
    reasons = {}
    for name in ("silo-c", "silo-e"):
        silo = unequal.silos[name]
        found = newest_records(silo.inbox, (Refusal,), {silo.key.public_key_hex}, name)
        reasons[name] = [v.record.reason for v in found if isinstance(v.record, Refusal)]
        assert silo.trainings == 0
    assert reasons == {
        "silo-c": [
            "The plan asks for more steps than the silo can do. It asks for 3 at the least, and at "
            "most 2 are done here."
        ],
        "silo-e": [
            "The plan's step cannot be shared evenly by the silo's training processes. It has 2 "
            "sequences, and 3 processes share them here."
        ],
    }
    assert unequal.silos["silo-b"].trainings == 1
    assert plan.record.round == 1


def test_whoever_follows_a_round_sees_the_steps_of_each_silo(unequal: SimulatedFederation) -> None:
    plan = unequal.open()
    unequal.silos_act(times=4)
    c = unequal.coordinator()
    feed = read_federation(c)
    statuses = {name: read_status(c, feed, plan, name) for name in ("silo-a", "silo-b")}
    shown = {name: status.steps for name, status in statuses.items() if status}
    assert shown == {"silo-a": STEPS, "silo-b": LEAST}


def test_a_plan_that_asks_for_all_steps_is_refused_by_whoever_can_do_fewer(
    make_federation: MakeFederation,
) -> None:
    federation = make_federation(
        {"steps": STEPS}, a=Behaviour.HONEST, b=Behaviour.HONEST, c=Behaviour.HONEST
    )
    federation.silos["silo-c"].training = TrainingSection(steps_at_most=STEPS - 1)
    plan = federation.open()
    federation.play(plan)
    report = report_of(federation, plan)
    last = report.silos[-1]
    assert (last.outcome, last.rule) == ("refused", "policy.least_steps")
    assert [silo.steps for silo in report.silos] == [None, None, None]


def test_the_page_tells_the_steps_of_each_institution_and_what_they_are_worth() -> None:
    fed = allowing(4)
    half = fed.submission("bank-a", fed.verdict("bank-a"), steps=5, tokens=2000)
    refused = SiloRecords("hospital-c", refusal=fed.refusal("hospital-c"))
    text = fed.page_text(
        fed.finished([fed.silo("bank-a", submission=half), fed.silo("hospital-b"), refused])
    )
    assert "Harbour Savings Bank admitted 5 of 10 2,000 28.6 %" in text.replace("bank-a ", "")
    assert "admitted 10 of 10 5,000 71.4 %" in text
    assert "from 4 on its adapter counts" in text
    assert "That it did them is its own word." in text
    plain = federation()
    whole = plain.page_text(plain.finished([plain.silo(silo) for silo in COHORT]))
    assert whole.count("10 of 10 5,000") == 3
    assert "its adapter counts, with the tokens" not in whole


def claims_failed(fed: Federation, bundle: Bundle) -> list[str]:
    return [claim.name for claim in audit(bundle, fed.membership) if claim.outcome == "fail"]


@pytest.mark.parametrize(
    ("claims", "rule"),
    [
        ({"steps": 5, "tokens": 2000}, "submission.too_few_steps"),
        ({"steps": 11, "tokens": 2000}, "submission.too_many_steps"),
        ({"steps": 6, "tokens": 6 * 8 * 128 + 1}, "submission.too_many_tokens"),
    ],
)
def test_an_auditor_finds_who_was_let_in_against_the_plan(
    claims: dict[str, int], rule: str
) -> None:
    fed = allowing(6)
    verdict = fed.verdict("bank-a")
    submission = fed.submission("bank-a", verdict, **claims)
    silos = [
        fed.silo("bank-a", submission=submission),
        fed.silo("hospital-b"),
        fed.silo("hospital-c"),
    ]
    honest = fed.finished(silos)
    assert honest.close is not None
    assert [item.rule for item in honest.close.record.rejected] == [rule]
    assert claims_failed(fed, fed.bundle(honest)) == []
    let_in = Admitted(
        silo="bank-a",
        submission_digest=submission.digest,
        verdict_digest=verdict.digest,
        adapter=submission.record.adapter,
        weight=submission.record.tokens,
    )
    adapter = EvidenceRef(
        kind="local-adapter", silo="bank-a", digest=let_in.adapter.digest, version=None
    )
    close = honest.close.record
    changes = {
        "admitted": (let_in, *close.admitted),
        "rejected": (),
        "held": (*close.held[:3], adapter, *close.held[3:]),
    }
    sealed = seal(Close.model_validate({**dict(close), **changes}), key("coordinator"))
    candidate = fed.candidate(sealed)
    evaluations = {silo: fed.evaluation(silo, candidate) for silo in COHORT}
    decision = fed.decision(candidate, evaluations)
    lax = fed.attempt(
        silos, close=sealed, candidate=candidate, evaluations=evaluations, decision=decision
    )
    assert claims_failed(fed, fed.bundle(lax)) == ["admission and weights"]


def test_an_auditor_finds_steps_that_the_report_tells_otherwise() -> None:
    fed = allowing(4)
    half = fed.submission("bank-a", fed.verdict("bank-a"), steps=5, tokens=2000)
    attempt = fed.finished([fed.silo("bank-a", submission=half), fed.silo("hospital-b")])
    report = fed.report(attempt).record
    for steps in (4, 10, None):
        changed = report.silos[0].model_copy(update={"steps": steps})
        silos = (changed, *report.silos[1:])
        forged = seal(report.model_copy(update={"silos": silos}), key("coordinator"))
        assert "report follows from evidence" in claims_failed(fed, bundle_of(forged, attempt))
