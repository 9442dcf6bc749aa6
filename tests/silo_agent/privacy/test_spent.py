"""What `silo-agent privacy`, check and status say of the ledger."""

from decimal import Decimal
from pathlib import Path

from data_contracts.dataset.contract.privacy_budget import PrivacyBudget
from silo_agent.privacy.ledger import PrivacyLedger
from silo_agent.privacy.ledger_lines import LedgerLines
from silo_agent.privacy.spent import (
    charged_words,
    rounds_left,
    spent_lines,
    spent_of,
    summary_words,
)
from tests.silo_agent.privacy.ledger_samples import charged, written

BUDGET = PrivacyBudget.model_validate(
    {"population": "ward", "unit": "record", "epsilon": "2", "delta": "0.00001"}
)


def test_every_charge_the_total_and_what_is_left_are_shown(tmp_path: Path) -> None:
    ledger = written(tmp_path, 2)
    lines = ledger.read()
    total = list(lines.charges())[-1][1].epsilon_lifetime
    said = "\n".join(spent_lines(lines, BUDGET))
    assert "population  ward" in said
    assert f"spent       epsilon {total} at delta 0.00001, in 2 trainings" in said
    assert f"left        epsilon {BUDGET.epsilon - total}" in said
    assert said.count("run-1 round") == 2


def test_the_rounds_that_are_left_fit_and_one_more_does_not(tmp_path: Path) -> None:
    ledger = written(tmp_path, 1)
    lines = ledger.read()
    last = next(lines.charges())[1]
    number = rounds_left(lines, last, BUDGET)
    assert 0 < number < 20
    for _ in range(number):
        lines = ledger.read()
        ledger.charge(lines, charged(lines, 1 + len(lines.lines)))
    spent = list(ledger.read().charges())[-1][1].epsilon_lifetime
    assert spent <= BUDGET.epsilon
    lines = ledger.read()
    assert charged(lines, 99).epsilon_lifetime > BUDGET.epsilon
    assert rounds_left(lines, last, BUDGET) == 0


def test_what_is_spent_is_told_at_the_delta_that_the_contract_has_now(tmp_path: Path) -> None:
    lines = written(tmp_path, 1).read()
    smaller = BUDGET.model_copy(update={"delta": Decimal("0.0000001")})
    charged_at = next(lines.charges())[1].epsilon_lifetime
    assert spent_of(lines, BUDGET) == charged_at
    assert spent_of(lines, smaller) > charged_at
    for budget in (BUDGET, smaller):
        line = summary_words(lines, budget)
        assert line is not None
        assert f"epsilon {spent_of(lines, budget)} of" in line
        said = "\n".join(spent_lines(lines, budget))
        assert f"spent       epsilon {spent_of(lines, budget)} at delta {budget.delta:f}" in said


def test_a_population_of_another_contract_is_shown_without_a_budget(tmp_path: Path) -> None:
    lines = written(tmp_path, 1).read()
    other = BUDGET.model_copy(update={"population": "clinic"})
    said = list(spent_lines(lines, other))
    assert "budget      none: the contract in force names another population, or none" in said
    assert "population  clinic" in said
    assert "spent       nothing" in said


def test_without_ledger_and_budget_it_says_so() -> None:
    assert list(spent_lines(LedgerLines(), None)) == [
        "No private training was charged, and the contract has no fl.privacy."
    ]


def test_one_line_for_check_and_one_for_status(tmp_path: Path) -> None:
    assert summary_words(LedgerLines(), None) is None
    assert summary_words(LedgerLines(), BUDGET) == (
        "ward: epsilon 0 of 2 spent in 0 trainings, at delta 0.00001 by record"
    )
    assert charged_words(tmp_path) is None
    written(tmp_path, 1)
    said = charged_words(tmp_path)
    assert said is not None and said.startswith("ward: epsilon ")
    assert " of 8 spent at delta 0.00001" in said
    PrivacyLedger(tmp_path).path.unlink()
    assert "an older state" in (charged_words(tmp_path) or "")
