"""What a silo signs of its population's lifetime total never gets less: at admission, and across
the reports that an auditor has."""

import shutil
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from aggregator.attempt import Attempt
from aggregator.audit.report_audit import TOTALS, audit
from aggregator.decisions.admission import judge, judged_again
from aggregator.decisions.privacy_rules import LOWER_TOTAL, is_lower
from aggregator.evidence.told_totals import told_before
from aggregator.feed.reading import read_federation
from aggregator.report.bundle import Bundle, bundle_of
from aggregator.report.files import report_with_page
from data_contracts.protocol.envelope import seal
from data_contracts.protocol.records.privacy_terms import PrivacyStatement
from silo_agent.privacy.ledger import MARK_NAME, PRIVACY
from tests.aggregator.federation_samples import COHORT, START, key, minutes
from tests.aggregator.test_private_admission import (
    DELTA,
    EPSILON,
    FED,
    STATEMENT,
    changed,
    finished,
    private_silo,
)
from tests.aggregator.test_private_rounds import budget, played, private
from tests.simulator.federation import SimulatedFederation
from tests.simulator.fixtures import MakeFederation

BEFORE = {"entries": STATEMENT.entries - 1}
MORE = STATEMENT.epsilon_lifetime + 1


@pytest.mark.parametrize(
    ("earlier", "is_less"),
    [
        pytest.param(BEFORE, False, id="one training fewer, and the same total"),
        pytest.param(BEFORE | {"epsilon_lifetime": EPSILON}, False, id="a smaller total"),
        pytest.param(BEFORE | {"epsilon_lifetime": MORE}, True, id="a larger total"),
        pytest.param({}, True, id="as many trainings"),
        pytest.param({"entries": 9}, True, id="more trainings"),
        pytest.param({"entries": 9, "population": "clinic"}, False, id="another population"),
        pytest.param(
            BEFORE | {"epsilon_lifetime": MORE, "delta": DELTA / 10},
            False,
            id="a larger total at a smaller delta",
        ),
        pytest.param(
            BEFORE | {"epsilon_lifetime": MORE, "delta": DELTA * 10},
            True,
            id="a larger total at a larger delta",
        ),
        pytest.param({"entries": 9, "delta": DELTA / 10}, True, id="more trainings at any delta"),
    ],
)
def test_a_total_of_one_population_never_gets_less(earlier: dict[str, Any], is_less: bool) -> None:
    assert is_lower(STATEMENT, [changed(**earlier)]) is is_less
    assert is_lower(STATEMENT, [changed(**BEFORE), changed(**earlier)]) is is_less


def test_a_silo_that_says_less_than_before_does_not_count() -> None:
    lying = replace(private_silo(COHORT[0]), told_less=True)
    silos = [lying, private_silo(COHORT[1])]
    close = judge(FED.plan, silos, minutes(62))
    assert [(item.silo, item.rule) for item in close.rejected] == [(COHORT[0], LOWER_TOTAL)]
    assert [item.silo for item in close.admitted] == [COHORT[1]]
    unseen = FED.attempt([replace(lying, told_less=False), silos[1]])
    assert judged_again(unseen, close, minutes(62)) == close, "an auditor takes it from the close"


def earlier_bundle(statement: PrivacyStatement, minutes_after_plan: int = -1) -> Bundle:
    """The report of another attempt, signed so long after the plan of `FED`."""
    attempt = finished(statement)
    signed_at = START + timedelta(minutes=minutes_after_plan)
    return bundle_of(seal(report_with_page(attempt, signed_at), key("coordinator")), attempt)


def finding(attempt: Attempt, *earlier: Bundle) -> tuple[str, str]:
    claims = audit(FED.bundle(attempt), FED.membership, earlier=earlier)
    (found,) = [(c.outcome, c.detail) for c in claims if c.name == TOTALS]
    return found


def test_an_auditor_holds_totals_against_those_of_earlier_reports() -> None:
    assert finding(finished())[0] == "not checked"
    lower = earlier_bundle(changed(**BEFORE, epsilon_lifetime=EPSILON))
    assert finding(finished(), lower) == ("pass", "no total is lower than in 1 earlier reports")
    higher = earlier_bundle(changed(**BEFORE, epsilon_lifetime=MORE))
    outcome, detail = finding(finished(), lower, higher)
    assert (outcome, detail) == ("fail", f"{COHORT[0]} says less of ward than it signed before")


def test_a_report_that_is_no_earlier_one_or_none_at_all_proves_nothing() -> None:
    higher = changed(**BEFORE, epsilon_lifetime=MORE)
    assert finding(finished(), earlier_bundle(higher, 1))[0] == "not checked"
    forged = replace(earlier_bundle(higher), evidence=())
    outcome, detail = finding(finished(), forged)
    assert outcome == "not checked" and "fails" in detail


@pytest.fixture
def federation(make_federation: MakeFederation) -> SimulatedFederation:
    return private(make_federation)


def forget(federation: SimulatedFederation, name: str) -> None:
    """The silo loses its ledger, and all that it has signed in its own home and bucket."""
    silo = federation.silos[name]
    shutil.rmtree(silo.home / PRIVACY)
    (silo.home / MARK_NAME).unlink()
    shutil.rmtree(silo.home / "outbox", ignore_errors=True)
    objects = federation.inbox(name).objects
    for slot in [slot for slot in objects if "verdict" in slot]:
        del objects[slot]


def outcomes(federation: SimulatedFederation, number: int) -> dict[str, str | None]:
    return {summary.silo: summary.rule for summary in played(federation, number).silos}


def test_a_silo_that_has_forgotten_what_it_spent_does_not_count(
    federation: SimulatedFederation,
) -> None:
    assert set(outcomes(federation, 1).values()) == {None}
    forget(federation, "silo-a")
    rules = outcomes(federation, 2)
    assert rules == {"silo-a": LOWER_TOTAL, "silo-b": None, "silo-c": None}


def test_a_new_population_and_a_larger_delta_are_no_lower_total(
    federation: SimulatedFederation,
) -> None:
    played(federation, 1)
    forget(federation, "silo-a")
    federation.silos["silo-a"].contract.privacy = budget("silo-a", population="of-other-people")
    federation.silos["silo-b"].contract.privacy = budget("silo-b", delta="0.005")
    assert set(outcomes(federation, 2).values()) == {None}


def test_totals_of_another_run_are_totals_too(federation: SimulatedFederation) -> None:
    played(federation, 1)
    federation.settings = federation.settings.model_copy(update={"run": "run-two"})
    plan = federation.open(1)
    c = federation.coordinator()
    told = told_before(c, read_federation(c), plan)
    assert set(told) == set(federation.silos)
    assert [each.entries for each in told["silo-a"]] == [1]
    forget(federation, "silo-a")
    federation.play(plan)
    assert outcomes(federation, 1)["silo-a"] == LOWER_TOTAL


def test_charges_are_signed_with_a_total_that_has_risen(federation: SimulatedFederation) -> None:
    totals = [played(federation, number).silos[0].privacy for number in (1, 2, 3)]
    said = [each.epsilon_lifetime for each in totals if each is not None]
    assert said == sorted(said) and len(set(said)) == 3
    assert said[0] < Decimal(8)
