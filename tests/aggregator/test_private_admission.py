"""Which private submissions count, what an auditor finds of them, and what page and card say."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from aggregator.attempt import Attempt, SiloRecords
from aggregator.audit.report_audit import PRIVACY, audit
from aggregator.decisions.admission import judge
from aggregator.publishing.model_card import card_records, render_card
from data_contracts.privacy.accountant import PrivateSteps, epsilon_of
from data_contracts.privacy.assumptions import ASSUMPTIONS
from data_contracts.protocol.envelope import seal
from data_contracts.protocol.records.leak_statement import LeakStatement
from data_contracts.protocol.records.privacy_terms import PrivacyStatement, PrivacyTerms
from tests.aggregator.federation_samples import (
    COHORT,
    Federation,
    digest,
    federation,
    key,
    minutes,
)

TERMS = PrivacyTerms(unit="record", clipping_norm=Decimal("1"), noise_multiplier=Decimal("1.5"))
FED = federation(privacy=TERMS)
STEPS = PrivateSteps(Decimal("0.01"), Decimal("1.5"), FED.plan.record.recipe.local_steps)
DELTA = Decimal("0.00001")
EPSILON = epsilon_of([STEPS], DELTA)
STATEMENT = PrivacyStatement(
    population="ward",
    unit="record",
    sampling_rate=STEPS.sampling_rate,
    noise_multiplier=STEPS.noise_multiplier,
    steps=STEPS.steps,
    epsilon=EPSILON,
    epsilon_lifetime=EPSILON + 1,
    epsilon_budget=Decimal("8"),
    delta=DELTA,
    entries=3,
    ledger_digest=digest("ledger"),
)
TOLD: dict[str, Any] = {
    "tokens": FED.plan.record.recipe.tokens_per_round,
    "first_step_loss": None,
    "last_step_loss": None,
    "training_seconds": 0,
}


def private_silo(
    silo: str, statement: PrivacyStatement | None = STATEMENT, fed: Federation = FED, **told: Any
) -> SiloRecords:
    verdict = fed.verdict(silo, privacy=statement)
    submission = fed.submission(silo, verdict, **TOLD | told)
    return replace(fed.silo(silo), verdict=verdict, submission=submission)


def rule_of(statement: PrivacyStatement | None = STATEMENT, **told: Any) -> str | None:
    close = judge(FED.plan, [private_silo(COHORT[0], statement, **told)], minutes(62))
    return close.rejected[0].rule if close.rejected else None


def changed(**changes: Any) -> PrivacyStatement:
    return PrivacyStatement.model_validate(STATEMENT.model_copy(update=changes).model_dump())


def test_what_fits_the_plan_counts_and_every_silo_the_same() -> None:
    close = judge(FED.plan, [private_silo(silo) for silo in COHORT[:2]], minutes(62))
    assert len({item.weight for item in close.admitted}) == 1
    assert len(close.admitted) == 2


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"unit": "subject"}, "privacy.other_terms"),
        ({"noise_multiplier": Decimal("1.6")}, "privacy.other_terms"),
        ({"steps": STEPS.steps - 1}, "privacy.other_terms"),
        ({"epsilon": EPSILON - Decimal("0.01")}, "privacy.understated"),
        ({"sampling_rate": Decimal("0.9")}, "privacy.understated"),
        ({"delta": Decimal("0.0000000001")}, "privacy.understated"),
        ({"epsilon_lifetime": EPSILON - Decimal("0.01")}, "privacy.understated"),
        ({"epsilon_budget": EPSILON}, "privacy.over_budget"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_a_statement_that_does_not_add_up_is_rejected_by_name(
    changes: dict[str, Any], rule: str
) -> None:
    assert rule_of(changed(**changes)) == rule


def test_no_statement_under_a_private_plan_and_none_under_a_plain_one() -> None:
    assert rule_of(None) == "privacy.missing"
    plain = federation()
    verdict = plain.verdict(COHORT[0], privacy=STATEMENT)
    own = replace(
        plain.silo(COHORT[0]), verdict=verdict, submission=plain.submission(COHORT[0], verdict)
    )
    assert judge(plain.plan, [own], minutes(62)).rejected[0].rule == "privacy.not_planned"


@pytest.mark.parametrize(
    "told",
    [
        {"first_step_loss": Decimal("2")},
        {"last_step_loss": Decimal("2")},
        {"tokens": TOLD["tokens"] - 1},
        {"leaks": LeakStatement(records=200, auc=Decimal("0.61"), auc_low=Decimal("0.55"))},
    ],
    ids=lambda told: next(iter(told)),
)
def test_what_private_steps_have_drawn_may_not_be_told(told: dict[str, Any]) -> None:
    assert rule_of(**told) == "privacy.told_more"


def finished(statement: PrivacyStatement = STATEMENT) -> Attempt:
    losses = {"silo_only_loss": None}
    return FED.finished([private_silo(silo, statement) for silo in COHORT[:2]], **losses)


def finding(attempt: Attempt, name: str) -> tuple[str, str]:
    claims = {c.name: (c.outcome, c.detail) for c in audit(FED.bundle(attempt), FED.membership)}
    return claims[name]


def test_an_auditor_computes_the_statements_again() -> None:
    outcome, detail = finding(finished(), PRIVACY)
    assert outcome == "pass"
    assert f"the largest lifetime total is {EPSILON + 1}" in detail


def test_an_auditor_finds_an_understated_epsilon_that_was_let_in() -> None:
    """A coordinator that lets it in has to say so in its close record."""
    attempt, low = finished(), private_silo(COHORT[0], changed(epsilon=Decimal("0.001")))
    close, honest = attempt.close, attempt.of(COHORT[0])
    assert close is not None
    new = {
        old.digest: made.digest
        for old, made in ((honest.verdict, low.verdict), (honest.submission, low.submission))
        if old is not None and made is not None
    }
    admitted = tuple(
        item.model_copy(
            update={
                name: new.get(getattr(item, name), getattr(item, name))
                for name in ("submission_digest", "verdict_digest")
            }
        )
        for item in close.record.admitted
    )
    held = tuple(
        ref.model_copy(update={"digest": new.get(ref.digest, ref.digest)})
        for ref in close.record.held
    )
    lying = seal(
        close.record.model_copy(update={"admitted": admitted, "held": held}), key("coordinator")
    )
    candidate = FED.candidate(lying)
    evaluations = {silo: FED.evaluation(silo, candidate) for silo in COHORT[:2]}
    let_in = FED.attempt(
        [low, private_silo(COHORT[1])],
        close=lying,
        candidate=candidate,
        evaluations=evaluations,
        decision=FED.decision(candidate, evaluations),
    )
    outcome, detail = finding(let_in, PRIVACY)
    assert (outcome, detail) == ("fail", f"{COHORT[0]}: privacy.understated")
    assert finding(let_in, "admission and weights")[0] == "fail"


def test_the_page_says_what_it_cost_whom_and_what_it_covers() -> None:
    text = FED.page_text(finished())
    for said in (str(EPSILON), str(EPSILON + 1), "ward", "0.00001", *ASSUMPTIONS):
        assert said in text, said
    assert "without differential privacy" not in text
    assert "counts the same" in text


def test_the_page_of_a_plain_round_says_nothing_of_it() -> None:
    plain = federation()
    text = plain.page_text(plain.finished([plain.silo(silo) for silo in COHORT[:2]]))
    assert "Epsilon" not in text
    assert "without differential privacy" in text


def test_the_model_card_says_the_largest_and_what_it_covers() -> None:
    higher = changed(epsilon_lifetime=EPSILON + 2)
    silos = [private_silo(COHORT[0]), private_silo(COHORT[1], higher)]
    bundle = FED.bundle(FED.finished(silos, silo_only_loss=None))
    card = " ".join(render_card(card_records(bundle), None).decode().split())
    assert f"Epsilon of all rounds so far | {EPSILON + 2} |" in card
    assert "There is no differential privacy" not in card
    assert "0.00001" in card
    for sentence in ASSUMPTIONS:
        assert " ".join(sentence.split()[:6]) in card
