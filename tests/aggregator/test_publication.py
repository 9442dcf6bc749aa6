"""Publication: quorum, mean, each silo, and only evaluations that belong to this candidate."""

from decimal import Decimal
from typing import Any

import pytest

from aggregator.attempt import SiloRecords
from aggregator.decisions.publication import decide
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Candidate, Decision, Evaluation
from tests.aggregator.federation_samples import (
    COHORT,
    Federation,
    adapter_ref,
    digest,
    federation,
    minutes,
)


def setting(**plan_changes: Any) -> tuple[Federation, Verified[Candidate]]:
    fed = federation(**plan_changes)
    return fed, fed.candidate(fed.close([fed.silo(silo) for silo in COHORT]))


def of_silos(evaluations: dict[str, Verified[Evaluation]]) -> list[SiloRecords]:
    return [SiloRecords(silo, evaluation=found) for silo, found in evaluations.items()]


def decided(increases: list[str], **plan_changes: Any) -> Decision:
    """Decision over silos whose candidate loss is 2 plus each increase."""
    fed, candidate = setting(**plan_changes)
    evaluations = {
        silo: fed.evaluation(
            silo,
            candidate,
            starting_loss=Decimal("2"),
            candidate_loss=Decimal("2") + Decimal(increase),
        )
        for silo, increase in zip(COHORT, increases, strict=False)
    }
    return decide(fed.plan, candidate, of_silos(evaluations), minutes(125))


@pytest.mark.parametrize(
    ("increases", "outcome", "rule"),
    [
        (["-0.1", "-0.2", "-0.3"], "published", "evaluation.not_worse"),
        (["0", "0", "0"], "published", "evaluation.not_worse"),
        (["0.1", "-0.1", "0"], "published", "evaluation.not_worse"),
        (["0.1", "-0.1", "0.000001"], "held", "evaluation.mean_worse"),
        (["0.100001", "-0.5", "-0.5"], "held", "evaluation.silo_worse"),
        (["-0.5"], "held", "evaluation.quorum"),
        ([], "held", "evaluation.quorum"),
    ],
)
def test_the_rule_decides_exactly_at_its_boundary(
    increases: list[str], outcome: str, rule: str
) -> None:
    decision = decided(increases)
    assert (decision.outcome, decision.rule) == (outcome, rule)
    expected = adapter_ref("candidate" if outcome == "published" else "start")
    assert decision.published_adapter == expected
    assert decision.missing == COHORT[len(increases) :]


def test_the_mean_rule_has_its_own_tolerance() -> None:
    tolerant = {"max_mean_increase": Decimal("0.05"), "max_silo_increase": Decimal("1")}
    assert decided(["0.05", "0.05", "0.05"], publication=tolerant).outcome == "published"
    assert decided(["0.05", "0.05", "0.06"], publication=tolerant).rule == "evaluation.mean_worse"


def test_means_are_plain_means_rounded_to_six_places() -> None:
    decision = decided(["0", "0.00001", "-0.00002"])
    assert decision.starting_mean_loss == Decimal("2.000000")
    assert decision.candidate_mean_loss == Decimal("1.999997")
    nobody = decided([])
    assert nobody.starting_mean_loss is None
    assert nobody.candidate_mean_loss is None


def test_claimed_tokens_do_not_move_the_mean() -> None:
    fed, candidate = setting()
    evaluations = {
        silo: fed.evaluation(
            silo,
            candidate,
            tokens=tokens,
            starting_loss=Decimal("2"),
            candidate_loss=loss,
        )
        for silo, tokens, loss in (
            ("bank-a", 10**9, Decimal("1")),
            ("hospital-b", 1, Decimal("2.09")),
        )
    }
    decision = decide(fed.plan, candidate, of_silos(evaluations), minutes(125))
    assert decision.candidate_mean_loss == Decimal("1.545")


@pytest.mark.parametrize(
    "changes",
    [
        {"candidate_digest": digest("another candidate")},
        {"plan_digest": digest("another plan")},
        {"round": 1},
        {"attempt": 2},
        {"run": "run-two"},
        {"federation": "cardiology"},
        {"silo": "bank-a"},
    ],
)
def test_an_evaluation_of_something_else_does_not_count(changes: dict[str, Any]) -> None:
    fed, candidate = setting()
    evaluations = {silo: fed.evaluation(silo, candidate) for silo in COHORT}
    evaluations["hospital-b"] = fed.evaluation("hospital-b", candidate, **changes)
    decision = decide(fed.plan, candidate, of_silos(evaluations), minutes(125))
    assert decision.missing == ("hospital-b",)
    assert [used.silo for used in decision.evaluations] == ["bank-a", "hospital-c"]


def test_a_silo_outside_the_cohort_has_no_say() -> None:
    fed, candidate = setting()
    evaluations = {"bank-z": fed.evaluation("bank-z", candidate)}
    assert decide(fed.plan, candidate, of_silos(evaluations), minutes(125)).evaluations == ()


def test_held_in_the_first_round_leaves_the_base_model_alone() -> None:
    decision = decided(["0.5", "0.5"], starting_adapter=None)
    assert decision.outcome == "held"
    assert decision.published_adapter is None


def test_a_silo_that_did_not_evaluate_is_missing() -> None:
    fed, candidate = setting()
    silos = [SiloRecords(silo) for silo in COHORT]
    assert decide(fed.plan, candidate, silos, minutes(125)).missing == COHORT


def test_an_alarm_of_a_defence_holds_what_everybody_finds_better() -> None:
    fed = federation()
    close = fed.close([fed.silo(silo) for silo in COHORT])
    for needs_person, rule in ((False, "evaluation.not_worse"), (True, "robust.alarm")):
        candidate = fed.candidate(close, needs_person=needs_person)
        better = {
            silo: fed.evaluation(
                silo, candidate, starting_loss=Decimal("2"), candidate_loss=Decimal("1")
            )
            for silo in COHORT
        }
        decision = decide(fed.plan, candidate, of_silos(better), minutes(125))
        assert (decision.rule, decision.outcome == "published") == (rule, not needs_person)
