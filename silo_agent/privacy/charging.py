"""What a plan would be charged here, and whether it may be; values in, values out."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from data_contracts.dataset.contract.privacy_budget import PrivacyBudget
from data_contracts.privacy.accountant import NoGuaranteeError, PrivateSteps, epsilon_of
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.privacy_terms import PrivacyTerms, rate_of
from silo_agent.policy.plan_context import PolicyRefusal
from silo_agent.policy.privacy_rules import (
    BUDGET_SPENT,
    DELTA_TOO_LARGE,
    NO_SUBJECTS,
    OTHER_UNIT,
    REPLAYED,
)
from silo_agent.privacy.ledger import lifetime_of, risen
from silo_agent.privacy.ledger_lines import Charged, LedgerLines


@dataclass(frozen=True)
class Asked:
    """What a charge is for: a plan, its terms, the budget of the contract, and the units that are
    trained on; the findings of the check, by digest."""

    plan: Verified[RoundPlan]
    terms: PrivacyTerms
    budget: PrivacyBudget
    units: int | None
    findings: str | None = None

    @property
    def steps(self) -> PrivateSteps:
        """What is charged, for a number of units that is known."""
        recipe = self.plan.record.recipe
        rate = rate_of(recipe.sequences_per_step, self.units or 1)
        return PrivateSteps(rate, self.terms.noise_multiplier, recipe.local_steps)


def objection(lines: LedgerLines, asked: Asked) -> PolicyRefusal | None:
    """The first rule against charging for a plan, or None."""
    budget = asked.budget
    if lines.is_replay(asked.plan.digest):
        return REPLAYED
    if _was_charged_by_records(lines, budget):
        return OTHER_UNIT
    if not asked.units:
        return NO_SUBJECTS
    if budget.delta * asked.units > 1:
        return DELTA_TOO_LARGE
    total = _total(lines, asked)
    return None if total is not None and total <= budget.epsilon else BUDGET_SPENT


def charge_of(lines: LedgerLines, asked: Asked, now: datetime) -> Charged:
    """The line for a plan against which there is no objection."""
    record, steps = asked.plan.record, asked.steps
    budget = asked.budget
    total = lifetime_of(lines, budget.population, budget.delta, steps)
    return Charged(
        at=now,
        run=record.run,
        round=record.round,
        attempt=record.attempt,
        plan_digest=asked.plan.digest,
        findings_digest=asked.findings,
        population=budget.population,
        unit=asked.terms.unit,
        sampling_rate=steps.sampling_rate,
        noise_multiplier=steps.noise_multiplier,
        steps=steps.steps,
        epsilon=epsilon_of([steps], budget.delta),
        epsilon_lifetime=risen(lines, budget.population, budget.delta, total),
        epsilon_budget=budget.epsilon,
        delta=budget.delta,
        entries=1 + sum(1 for _ in lines.charges(budget.population)),
        units=asked.units,
    )


def known_units(lines: LedgerLines, population: str, unit: str) -> int | None:
    """How many there were at the last charge; None where nothing was charged yet."""
    found = [
        charged.units
        for _, charged in lines.charges(population)
        if charged.unit == unit and charged.units is not None
    ]
    return found[-1] if found else None


def _was_charged_by_records(lines: LedgerLines, budget: PrivacyBudget) -> bool:
    """Then nobody knows what was spent of a subject, who may have had any number of them."""
    units = {charged.unit for _, charged in lines.charges(budget.population)}
    return budget.unit == "subject" and "record" in units


def _total(lines: LedgerLines, asked: Asked) -> Decimal | None:
    """None where it is above every number."""
    try:
        return lifetime_of(lines, asked.budget.population, asked.budget.delta, asked.steps)
    except NoGuaranteeError:
        return None
