"""The steward's page beside a check: the last leak checks with their limits, and what private
trainings have spent; exact, for this silo alone."""

from datetime import timedelta
from pathlib import Path

import pytest

from data_contracts.dataset.contract.terms import EGRESS
from silo_agent.gate.steward_page import render_page
from silo_agent.gate.steward_view import steward_view
from silo_agent.leaks.figures import Exposure, LeakFigures
from silo_agent.leaks.kept import keep
from silo_agent.leaks.rules import objection
from silo_agent.policy.leak_check import LeakCheck
from silo_agent.watching.steward_figures import CHECKS, steward_figures
from tests.data_contracts.dataset.contract_samples import CONTRACT, sample_records
from tests.silo_agent.gate_samples import NOW, SampleSilo
from tests.silo_agent.privacy.ledger_samples import charged, written
from tests.silo_agent.test_policy import PLAN
from tests.silo_agent.test_steward_page import Seen
from tests.simulator.leaks import FEW_LEAKS

LIMITS = LeakCheck(max_auc=0.62)
EXPOSED = FEW_LEAKS.model_copy(
    update={
        "trained": 7,
        "exposure": Exposure(
            planted=8, of_planted=8, candidates=1023, mean=6.25, highest=9, chance=1e-12
        ),
    }
)


@pytest.fixture
def silo(tmp_path: Path) -> SampleSilo:
    silo = SampleSilo(tmp_path)
    silo.write_records(list(sample_records()))
    return silo


def checked(silo: SampleSilo, round_number: int, figures: LeakFigures) -> None:
    """As a round leaves it."""
    plan = PLAN.model_copy(update={"round": round_number})
    at = NOW + timedelta(hours=round_number)
    keep(silo.home, plan, at, figures, LIMITS, objection(figures, LIMITS))


def words(silo: SampleSilo) -> str:
    gate = silo.gate
    view = steward_view(gate, gate.check(), steward_figures(silo.home))
    return Seen(render_page(view)).words


def test_a_silo_without_rounds_has_no_such_figures(silo: SampleSilo) -> None:
    shown = words(silo)
    assert "What adapters tell" not in shown
    assert "private trainings" not in shown


def test_figures_and_limits_of_the_last_rounds_are_shown_whole(silo: SampleSilo) -> None:
    checked(silo, 1, FEW_LEAKS)
    checked(silo, 2, EXPOSED)
    shown = words(silo)
    assert "None of these figures leaves." in shown
    assert "0.520 (0.480 to 0.560) limit 0.620" in shown
    assert "1 of 390, held out 1 of 290 limit 0.010 more" in shown
    assert "7 trained on, 300 held out, cut by time" in shown, "no small number is held back here"
    assert "6.2 bits, 8 canaries among 1,023 limit 5.0 bits kept in release.exposure" in shown
    first, second = (shown.index(f"round {number}, attempt") for number in (2, 1))
    assert first < second, "the newest first"
    assert "may leave" in shown and "not measured" in shown


def test_only_so_many_rounds_are_shown(silo: SampleSilo) -> None:
    for number in range(1, CHECKS + 3):
        checked(silo, number, FEW_LEAKS)
    shown = words(silo)
    assert "round 3, attempt" in shown
    assert "round 2, attempt" not in shown


def test_the_page_says_where_the_contract_lets_figures_out(silo: SampleSilo) -> None:
    allow = ", ".join((*EGRESS, "leak-figures"))
    term = "  - property: fl.egress\n    value: {{allow: [{}]}}\n"
    silo.write_contract(CONTRACT + term.format(allow))
    checked(silo, 1, FEW_LEAKS)
    assert "The contract lets the first two figures out" in words(silo)


def test_totals_of_the_ledger_are_those_of_the_last_charge_of_each_population(
    silo: SampleSilo,
) -> None:
    ledger = written(silo.home, 2)
    lines = ledger.read()
    ledger.charge(lines, charged(lines, 3, population="clinic", unit="subject"))
    last = {each.population: each for _, each in ledger.read().charges()}
    found = {each.population: each for each in steward_figures(silo.home).totals}
    assert set(found) == {"ward", "clinic"}
    for name, charge in last.items():
        assert found[name].spent == str(charge.epsilon_lifetime)
        assert found[name].budget == "8"
    assert [found[name].trainings for name in ("ward", "clinic")] == [2, 1]
    shown = words(silo)
    assert "What private trainings have revealed so far" in shown
    assert f"ward one record {found['ward'].spent} 8 0.00001 2" in shown
    assert f"clinic all records of one subject {found['clinic'].spent} 8 0.00001 1" in shown


def test_a_ledger_that_is_not_what_it_was_is_said_on_the_page(silo: SampleSilo) -> None:
    ledger = written(silo.home, 1)
    ledger.path.write_text("{}\n")
    shown = words(silo)
    assert "Nothing private is trained until that is put right." in shown
