"""Every admission rule bites, names its reason, and leaves the other silos alone."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from aggregator.attempt import SiloRecords
from aggregator.decisions.admission import judge, judged_again, reached_quorum
from aggregator.decisions.carried_agreement import carried_agreement
from aggregator.decisions.copies import said_of_copies
from data_contracts.dataset.contract.agreement import Parties
from data_contracts.dataset.suite.required_rules import REQUIRED_RULES
from data_contracts.protocol.payload import canonical_bytes
from data_contracts.protocol.records import Close
from data_contracts.protocol.records.close import Likeness
from data_contracts.protocol.records.plan_terms import CountedCopy
from data_contracts.protocol.records.verdict import VERDICT_VALIDITY, RuleOutcome
from infra.clock import ALLOWED_SKEW
from tests.aggregator.federation_samples import (
    COHORT,
    OTHER_RULES,
    RULE,
    Federation,
    adapter_ref,
    allowing,
    digest,
    federation,
    minutes,
)

NOW = minutes(62)
SILO = "hospital-b"
FED = federation()

Change = Callable[[Federation], SiloRecords]


def judged(fed: Federation, changed: SiloRecords) -> Close:
    others = [fed.silo(silo) for silo in COHORT if silo != changed.silo]
    close = judge(fed.plan, [*others, changed], NOW)
    assert {item.silo for item in close.admitted} >= {other.silo for other in others}
    return close


def with_verdict(**changes: Any) -> Change:
    def change(fed: Federation) -> SiloRecords:
        verdict = fed.verdict(SILO, **changes)
        return fed.silo(SILO, verdict=verdict, submission=fed.submission(SILO, verdict))

    return change


def with_submission(**changes: Any) -> Change:
    return lambda fed: fed.silo(SILO, submission=fed.submission(SILO, fed.verdict(SILO), **changes))


def elsewhere(**changes: Any) -> list[Change]:
    """Each kind of record in turn, signed for another place in the run."""
    return [
        lambda fed: fed.silo(SILO, acceptance=fed.acceptance(SILO, **changes)),
        lambda fed: fed.silo(SILO, refusal=fed.refusal(SILO, **changes)),
        with_verdict(**changes),
        with_submission(**changes),
    ]


def lacking(rule: str) -> tuple[RuleOutcome, ...]:
    return tuple(outcome for outcome in (RULE, *OTHER_RULES) if outcome.rule != rule)


REJECTIONS: list[tuple[str, Change]] = [
    ("silo.revoked", lambda fed: fed.silo(SILO, is_revoked=True)),
    ("silo.withdrew", lambda fed: fed.silo(SILO, withdrew=True)),
    ("silo.equivocation", lambda fed: fed.silo(SILO, equivocated=True)),
    ("acceptance.missing", lambda fed: fed.silo(SILO, acceptance=None)),
    ("verdict.missing", lambda fed: fed.silo(SILO, verdict=None)),
    ("verdict.other_contract", with_verdict(contract_digest=digest("another contract"))),
    (
        "verdict.contradictory",
        with_verdict(outcomes=(RULE.model_copy(update={"success": False}),)),
    ),
    *(
        ("verdict.incomplete", with_verdict(outcomes=lacking(rule)))
        for rule in sorted(REQUIRED_RULES)
    ),
    (
        "verdict.contradictory",
        with_verdict(
            outcomes=(
                RULE.model_copy(update={"success": False, "severity": "warning"}),
                *OTHER_RULES,
            )
        ),
    ),
    ("verdict.incomplete", with_verdict(outcomes=())),
    ("verdict.incomplete", with_verdict(outcomes=(RULE, RULE, *OTHER_RULES))),
    ("verdict.too_long", with_verdict(expires_at=minutes(3) + VERDICT_VALIDITY + ALLOWED_SKEW)),
    ("verdict.expired", with_verdict(expires_at=NOW - ALLOWED_SKEW - timedelta(seconds=1))),
    ("submission.other_verdict", with_submission(verdict_digest=digest("another verdict"))),
    ("submission.late", with_submission(issued_at=minutes(65) + timedelta(seconds=1))),
    ("submission.too_few_steps", with_submission(steps=9)),
    ("submission.too_few_steps", with_submission(steps=1)),
    ("submission.too_many_steps", with_submission(steps=11)),
    ("submission.too_many_tokens", with_submission(tokens=10 * 8 * 128 + 1)),
    (
        "adapter.too_large",
        with_submission(adapter=adapter_ref("x").model_copy(update={"size": 10_001})),
    ),
    ("adapter.not_finite", lambda fed: fed.silo(SILO, adapter_fault="adapter.not_finite")),
    ("free_rider.copied", with_submission(adapter=adapter_ref("start"))),
]
MISPLACED: dict[str, dict[str, Any]] = {
    "binding.federation": {"federation": "cardiology"},
    "binding.run": {"run": "run-two"},
    "binding.round": {"round": 1},
    "binding.attempt": {"attempt": 2},
    "binding.plan": {"plan_digest": digest("another plan")},
    "binding.silo": {"silo": "bank-a"},
}
REJECTIONS += [
    (reason, change) for reason, changes in MISPLACED.items() for change in elsewhere(**changes)
]


@pytest.mark.parametrize(("reason", "change"), REJECTIONS)
def test_each_rule_rejects_with_its_reason(reason: str, change: Change) -> None:
    fed = federation()
    changed = change(fed)
    close = judged(fed, changed)
    (rejected,) = close.rejected
    submission = changed.submission
    assert (rejected.silo, rejected.rule) == (SILO, reason)
    assert rejected.submission_digest == (submission.digest if submission else None)


@pytest.mark.parametrize(
    "change",
    [
        with_verdict(expires_at=NOW - ALLOWED_SKEW),
        with_submission(issued_at=minutes(65)),
        with_submission(adapter=adapter_ref("x").model_copy(update={"size": 10_000})),
        with_verdict(
            outcomes=(
                RULE,
                *OTHER_RULES,
                RULE.model_copy(
                    update={"rule": "contract.own", "success": False, "severity": "warning"}
                ),
            )
        ),
        with_verdict(expires_at=minutes(2) + VERDICT_VALIDITY + ALLOWED_SKEW),
    ],
)
def test_boundaries_are_on_the_silo_s_side(change: Change) -> None:
    fed = federation()
    assert len(judged(fed, change(fed)).admitted) == 3


def test_a_refusal_wins_over_everything_that_the_silo_submitted() -> None:
    fed = federation()
    refusal = fed.refusal(SILO)
    (refused,) = judged(fed, fed.silo(SILO, refusal=refusal)).refused
    assert (refused.silo, refused.rule) == (SILO, "policy.purpose")
    assert refused.record_digest == refusal.digest


@pytest.mark.parametrize(
    ("outcomes", "rule"),
    [
        ((), "verdict.failed"),
        ((RULE.model_copy(update={"success": False}),), "verdict.licence.allowed"),
        (
            (
                RULE,
                RULE.model_copy(update={"rule": "a.hint", "success": False, "severity": "warning"}),
                RULE.model_copy(update={"rule": "subjects.minimum", "success": False}),
            ),
            "verdict.subjects.minimum",
        ),
        ((RULE.model_copy(update={"rule": "r" * 80, "success": False}),), "verdict." + "r" * 72),
    ],
)
def test_a_failed_contract_refuses_by_its_first_failing_rule(
    outcomes: tuple[Any, ...], rule: str
) -> None:
    fed = federation()
    changed = with_verdict(passed=False, outcomes=outcomes)(fed)
    (refused,) = judged(fed, changed).refused
    assert refused.rule == rule
    assert changed.verdict is not None
    assert refused.record_digest == changed.verdict.digest


def test_silence_is_missing_whether_or_not_it_accepted() -> None:
    fed = federation()
    for changed in (
        SiloRecords(SILO),
        fed.silo(SILO, submission=None),
        fed.silo(SILO, submission=None, verdict=None),
    ):
        assert judged(fed, changed).missing == (SILO,)
    assert judge(fed.plan, [], NOW).missing == COHORT


def test_a_silo_outside_the_cohort_is_rejected() -> None:
    fed = federation()
    (rejected,) = judged(fed, fed.silo("bank-z")).rejected
    assert (rejected.silo, rejected.rule) == ("bank-z", "cohort.not_named")


def test_all_copies_of_one_adapter_are_rejected() -> None:
    fed = federation()
    copy = fed.submission(SILO, fed.verdict(SILO), adapter=adapter_ref("bank-a"))
    close = judge(
        fed.plan,
        [fed.silo("bank-a"), fed.silo(SILO, submission=copy), fed.silo("hospital-c")],
        NOW,
    )
    assert [item.silo for item in close.admitted] == ["hospital-c"]
    assert {(item.silo, item.rule) for item in close.rejected} == {
        ("bank-a", "free_rider.copied"),
        (SILO, "free_rider.copied"),
    }


def alike(silo: str, like: str | None, cosine: str = "0.999000") -> Likeness:
    return Likeness(silo=silo, like=like, cosine=Decimal(cosine))


def both_alike(fed: Federation) -> list[SiloRecords]:
    return [
        fed.silo("bank-a", alike=alike("bank-a", SILO)),
        fed.silo(SILO, alike=alike(SILO, "bank-a")),
        fed.silo("hospital-c"),
    ]


def counting(*silos: str) -> Federation:
    decided = tuple(CountedCopy(silo=silo, decision="A. Person saw its logs") for silo in silos)
    return federation(counted_copies=decided or None)


@pytest.mark.parametrize(
    ("counted", "admitted"),
    [
        ((), ["hospital-c"]),
        (("bank-a",), ["bank-a", "hospital-c"]),
        ((SILO,), ["hospital-b", "hospital-c"]),
        (("bank-a", SILO), ["bank-a", "hospital-b", "hospital-c"]),
        (("hospital-c",), ["hospital-c"]),
    ],
)
def test_of_two_that_are_alike_counts_whom_a_person_named(
    counted: tuple[str, ...], admitted: list[str]
) -> None:
    fed = counting(*counted)
    close = judge(fed.plan, both_alike(fed), NOW)
    assert [item.silo for item in close.admitted] == admitted
    assert {item.rule for item in close.rejected} <= {"free_rider.copied"}
    assert close.alike == (alike("bank-a", SILO), alike(SILO, "bank-a"))


def test_what_two_sent_with_one_digest_counts_for_whom_a_person_named() -> None:
    fed = counting("bank-a")
    copy = fed.submission(SILO, fed.verdict(SILO), adapter=adapter_ref("bank-a"))
    close = judge(fed.plan, [fed.silo("bank-a"), fed.silo(SILO, submission=copy)], NOW)
    assert [item.silo for item in close.admitted] == ["bank-a"]
    assert close.alike == (alike("bank-a", SILO, "1.000000"), alike(SILO, "bank-a", "1.000000"))


def test_nobody_lets_the_start_count() -> None:
    fed = counting(SILO)
    for changed in (
        fed.silo(SILO, alike=alike(SILO, None)),
        with_submission(adapter=adapter_ref("start"))(fed),
    ):
        (rejected,) = judged(fed, changed).rejected
        assert (rejected.silo, rejected.rule) == (SILO, "free_rider.copied")


def test_one_that_does_not_count_anyway_is_nobody_s_copy() -> None:
    fed = federation()
    first, second, third = both_alike(fed)
    close = judge(
        fed.plan, [first, replace(second, adapter_fault="adapter.not_finite"), third], NOW
    )
    assert [item.silo for item in close.admitted] == ["bank-a", "hospital-c"]
    assert close.alike is None


def test_who_was_alike_is_judged_again_from_the_close() -> None:
    for fed in (federation(), counting("bank-a")):
        silos = both_alike(fed)
        close = judge(fed.plan, silos, NOW)
        unseen = [replace(own, alike=None) for own in silos]
        assert judged_again(fed.attempt(unseen), close, NOW) == close


def test_a_silo_that_was_not_asked_is_judged_again_only_by_what_a_close_judges() -> None:
    """Its evaluation is none of that: it comes after the close."""
    fed, stranger = federation(), "bank-z"
    silos = [fed.silo(silo) for silo in fed.plan.record.cohort]
    close = judge(fed.plan, silos, NOW)
    late = SiloRecords(stranger, is_newer=True)
    assert judged_again(fed.attempt([*silos, late]), close, NOW) == close
    refused = replace(late, refusal=fed.refusal(SILO))
    again = judged_again(fed.attempt([*silos, refused]), close, NOW)
    named = [item.silo for item in again.refused] + [item.silo for item in again.rejected]
    assert named == [stranger]


def test_what_is_said_of_copies_names_no_other() -> None:
    fed = federation()
    first, second, third = both_alike(fed)
    close = judge(fed.plan, [first, second, replace(third, equivocated=True)], NOW)
    assert said_of_copies(close).endswith(": bank-a, hospital-b.")
    assert said_of_copies(judged(fed, fed.silo(SILO, equivocated=True))) == ""


def test_a_silo_for_which_nothing_is_pinned_has_agreed_to_nothing() -> None:
    fed = federation()
    acceptance = fed.acceptance(SILO).record
    parties = Parties(fed.plan.record.federation, "bank-z", frozenset(), frozenset())
    assert carried_agreement(acceptance, fed.plan.record, parties) is None


def test_a_plan_without_copies_says_nothing_of_them() -> None:
    fed = federation()
    assert b"alike" not in canonical_bytes(judged(fed, fed.silo(SILO)))
    assert b"counted_copies" not in canonical_bytes(fed.plan.record)
    with pytest.raises(ValidationError, match="counted_copies must name silos of the cohort"):
        counting("bank-z")
    with pytest.raises(ValidationError, match="counted_copies must name silos of the cohort"):
        counting("bank-a", "bank-a")


def test_a_copy_that_is_rejected_anyway_does_not_take_the_original_down() -> None:
    fed = federation()
    copy = fed.submission(
        SILO, fed.verdict(SILO), adapter=adapter_ref("bank-a"), issued_at=minutes(90)
    )
    close = judged(fed, fed.silo(SILO, submission=copy))
    assert [item.silo for item in close.admitted] == ["bank-a", "hospital-c"]
    assert close.rejected[0].rule == "submission.late"


@pytest.mark.parametrize(
    ("claimed", "cap", "weight"),
    [
        (5000, 8000, 5000),
        (8001, 8000, 8000),
        (10 * 8 * 128, 8000, 8000),
        (10 * 8 * 128, 10**12, 10 * 8 * 128),
        (1, 8000, 1),
    ],
)
def test_weight_is_the_tokens_up_to_the_plan_s_cap(claimed: int, cap: int, weight: int) -> None:
    fed = federation(merge={"rule": "stack_truncate", "weight_cap_tokens": cap})
    close = judged(fed, with_submission(tokens=claimed)(fed))
    assert {item.silo: item.weight for item in close.admitted}[SILO] == weight


def rule_about(fed: Federation, **claims: int) -> str | None:
    """Why a submission with these claims is rejected."""
    close = judged(fed, with_submission(**claims)(fed))
    return next((item.rule for item in close.rejected if item.silo == SILO), None)


def weights_of(fed: Federation, **claims: int) -> dict[str, int]:
    close = judged(fed, with_submission(**claims)(fed))
    return {item.silo: item.weight for item in close.admitted}


@pytest.mark.parametrize("least", [1, 4, 9, 10])
def test_steps_count_from_the_plan_s_least_to_all_of_them(least: int) -> None:
    fed = allowing(least)
    found = {steps: rule_about(fed, steps=steps, tokens=1) for steps in range(1, 12)}
    few = dict.fromkeys(range(1, least), "submission.too_few_steps")
    assert found == few | dict.fromkeys(range(least, 11)) | {11: "submission.too_many_steps"}


@pytest.mark.parametrize("steps", [4, 5, 10])
def test_tokens_are_those_that_the_steps_can_hold(steps: int) -> None:
    """By the steps that were done, not by those of the plan."""
    fed, most = allowing(4), steps * 8 * 128
    assert rule_about(fed, steps=steps, tokens=most) is None
    assert rule_about(fed, steps=steps, tokens=most + 1) == "submission.too_many_tokens"


def test_a_silo_that_did_less_weighs_by_the_tokens_that_it_did() -> None:
    """Whatever the number of its steps: they bound the tokens, and weigh nothing themselves."""
    assert weights_of(allowing(4), steps=5, tokens=2600)[SILO] == 2600
    assert weights_of(allowing(4), steps=9, tokens=2600)[SILO] == 2600
    assert weights_of(allowing(4, cap=2000), steps=5, tokens=2600)[SILO] == 2000


def test_a_plan_without_a_least_asks_for_every_step() -> None:
    """And says nothing about it in what is signed, so that earlier releases read it."""
    assert b"least_steps" not in canonical_bytes(FED.plan.record)
    assert b"least_steps" in canonical_bytes(allowing(10).plan.record)
    assert rule_about(FED, steps=9) == "submission.too_few_steps"


def test_zero_tokens_cannot_even_be_written() -> None:
    fed = federation()
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        with_submission(tokens=0)(fed)


def test_order_of_the_evidence_does_not_matter_and_judging_again_agrees() -> None:
    fed = federation()
    evidence = [
        fed.silo("bank-a"),
        fed.silo(SILO, refusal=fed.refusal(SILO)),
        fed.silo("hospital-c"),
    ]
    closes = [judge(fed.plan, order, NOW) for order in itertools.permutations(evidence)]
    assert all(close == closes[0] for close in closes)
    assert judge(fed.plan, evidence, closes[0].issued_at) == closes[0]
    assert closes[0].plan_digest == fed.plan.digest


def test_quorum_counts_the_admitted_only() -> None:
    fed = federation()
    two = judged(fed, SiloRecords(SILO))
    one = judge(fed.plan, [fed.silo("bank-a"), fed.silo(SILO, equivocated=True)], NOW)
    assert reached_quorum(two, fed.plan.record)
    assert not reached_quorum(one, fed.plan.record)


def test_a_silo_given_twice_is_a_fault() -> None:
    fed = federation()
    with pytest.raises(ValueError, match="each silo once"):
        judge(fed.plan, [fed.silo(SILO), fed.silo(SILO)], NOW)
