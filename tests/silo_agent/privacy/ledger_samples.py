"""Charges for tests of the ledger."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from data_contracts.privacy.accountant import epsilon_of
from silo_agent.privacy.ledger import PrivacyLedger, lifetime_of
from silo_agent.privacy.ledger_lines import Charged, LedgerLines

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
FINDINGS = "f" * 64
JOB, OTHER_JOB = "1" * 64, "2" * 64


def digest(number: int) -> str:
    return f"{number:064x}"


def charged(lines: LedgerLines, plan: int, **changes: Any) -> Charged:
    """A charge of 100 steps at rate 0.032 and noise 2: about 0.8 of a budget of 8."""
    made = Charged(
        at=NOW,
        run="run-1",
        round=plan,
        attempt=1,
        plan_digest=digest(plan),
        findings_digest=FINDINGS,
        population="ward",
        unit="record",
        sampling_rate=Decimal("0.032"),
        noise_multiplier=Decimal("2"),
        steps=100,
        epsilon=Decimal("1"),
        epsilon_lifetime=Decimal("1"),
        epsilon_budget=Decimal("8"),
        delta=Decimal("0.00001"),
        entries=1,
        units=1000,
    ).model_copy(update=changes)
    steps, delta, population = made.private_steps, made.delta, made.population
    real = {
        "epsilon": epsilon_of([steps], delta),
        "epsilon_lifetime": lifetime_of(lines, population, delta, steps),
        "entries": 1 + sum(1 for _ in lines.charges(population)),
    }
    return made.model_copy(update=real | changes)


def written(home: Path, plans: int, **changes: Any) -> PrivacyLedger:
    """A ledger with so many charges, each for a plan of its own."""
    ledger = PrivacyLedger(home)
    for plan in range(1, plans + 1):
        lines = ledger.read()
        ledger.charge(lines, charged(lines, plan, **changes))
    return ledger
