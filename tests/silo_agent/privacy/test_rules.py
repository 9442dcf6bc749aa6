"""Which rule refuses a plan for its privacy, and which charge is objected to."""

from decimal import Decimal
from typing import Any

import pytest

from data_contracts.dataset.contract.privacy_budget import PrivacyBudget
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.privacy_terms import PrivacyTerms, PrivacyUnit
from silo_agent.policy.policy_file import PolicyFile, PrivacyRules
from silo_agent.policy.privacy_rules import KNOWN_LATER, OTHER_UNIT
from silo_agent.privacy.charging import Asked, charge_of, known_units, objection
from silo_agent.privacy.ledger_lines import Charged, LedgerLines, Line
from tests.aggregator.federation_samples import key
from tests.silo_agent.privacy.ledger_samples import NOW, digest
from tests.silo_agent.test_policy import PLAN, context, decided_by, policy, terms


def private(unit: PrivacyUnit = "record", noise: str = "1.5") -> RoundPlan:
    asked = PrivacyTerms(unit=unit, clipping_norm=Decimal("1"), noise_multiplier=Decimal(noise))
    return PLAN.model_copy(update={"privacy": asked})


def budget(**changes: Any) -> PrivacyBudget:
    stated = {"population": "ward", "unit": "record", "epsilon": "8", "delta": "0.00001"}
    return PrivacyBudget.model_validate(stated | changes)


def requiring(file: PolicyFile) -> PolicyFile:
    assert file.policy is not None
    asks = file.policy.model_copy(update={"privacy": PrivacyRules(required=True)})
    return PolicyFile(asks, file.digest, None)


@pytest.mark.parametrize(
    ("unit", "stated", "rule"),
    [
        ("record", "record", None),
        ("subject", "record", None),
        ("subject", "subject", None),
        ("record", "subject", "policy.privacy_unit"),
        ("record", None, "policy.privacy_unit"),
    ],
    ids=["same", "stronger", "subjects", "weaker", "no-budget"],
)
def test_a_plan_protects_at_least_the_unit_of_the_contract(
    tmp_path: Any, unit: PrivacyUnit, stated: str | None, rule: str | None
) -> None:
    contract = terms(privacy=None if stated is None else budget(unit=stated))
    assert decided_by(private(unit), policy(tmp_path), context(contract=contract)) == rule


def test_plain_plans_are_refused_where_policy_or_contract_ask_for_privacy(tmp_path: Any) -> None:
    file = policy(tmp_path)
    assert decided_by(PLAN, file, context()) is None
    assert decided_by(PLAN, requiring(file), context()) == "policy.privacy"
    having = context(contract=terms(privacy=budget()))
    assert decided_by(PLAN, file, having) == "policy.privacy"
    assert decided_by(private(), requiring(file), having) is None


@pytest.mark.parametrize("refusal", [*KNOWN_LATER, OTHER_UNIT], ids=lambda each: each.rule)
def test_what_ledger_and_settings_object_to_is_refused_by_that_rule(
    tmp_path: Any, refusal: Any
) -> None:
    where = context(contract=terms(privacy=budget()), objections=frozenset({refusal.rule}))
    assert decided_by(private(), policy(tmp_path), where) == refusal.rule
    assert not any(sign.isdigit() and sign not in "18" for sign in refusal.reason)


def asked(units: int | None = 1000, noise: str = "1.5", **changes: Any) -> Asked:
    plan: Verified[RoundPlan] = seal(private(noise=noise), key("coordinator"))
    assert plan.record.privacy is not None
    return Asked(plan, plan.record.privacy, budget(**changes), units, "f" * 64)


def ruled(lines: LedgerLines, wanted: Asked) -> str | None:
    found = objection(lines, wanted)
    return found.rule if found else None


@pytest.mark.parametrize(
    ("wanted", "rule"),
    [
        (asked(), None),
        (asked(units=None), "policy.privacy_subjects"),
        (asked(units=0), "policy.privacy_subjects"),
        (asked(units=100_000), None),
        (asked(units=100_001), "policy.privacy_delta"),
        (asked(epsilon="0.001"), "policy.privacy_budget"),
        (asked(noise="0.01"), "policy.privacy_budget"),
    ],
    ids=["fits", "unknown", "none", "delta-just", "delta-above", "budget", "overflow"],
)
def test_the_first_rule_against_a_charge(wanted: Asked, rule: str | None) -> None:
    assert ruled(LedgerLines(), wanted) == rule


def after(*charged: Charged) -> LedgerLines:
    lines = (Line(n, each, digest(n)) for n, each in enumerate(charged, 1))
    return LedgerLines(tuple(lines))


def test_a_charge_that_just_fits_is_made_and_the_next_is_not() -> None:
    first = charge_of(LedgerLines(), asked(), NOW)
    exact = asked(epsilon=str(first.epsilon))
    assert ruled(LedgerLines(), exact) is None
    spent = after(first.model_copy(update={"plan_digest": digest(5)}))
    assert ruled(spent, exact) == "policy.privacy_budget"


def test_a_population_charged_by_records_is_never_counted_by_subjects() -> None:
    lines = after(
        charge_of(LedgerLines(), asked(), NOW).model_copy(update={"plan_digest": "0" * 64})
    )
    assert ruled(lines, asked(unit="subject")) == "policy.privacy_unit"
    assert ruled(lines, asked(unit="subject", population="clinic")) is None


def test_units_are_known_from_the_last_charge_of_that_unit() -> None:
    lines = after(charge_of(LedgerLines(), asked(units=777), NOW))
    assert known_units(lines, "ward", "record") == 777
    assert known_units(lines, "ward", "subject") is None
    assert known_units(lines, "clinic", "record") is None
