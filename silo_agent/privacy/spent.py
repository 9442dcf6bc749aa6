"""What was spent of a population's budget, in words, and how often the last round still fits."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from data_contracts.dataset.contract.privacy_budget import PrivacyBudget
from data_contracts.errors import ConsortiaError
from data_contracts.privacy.accountant import NoGuaranteeError, PrivateSteps
from silo_agent.privacy.ledger import PrivacyLedger, lifetime_of
from silo_agent.privacy.ledger_lines import Charged, LedgerLines

MOST_ROUNDS = 1_000


def spent_lines(lines: LedgerLines, budget: PrivacyBudget | None) -> Iterator[str]:
    """Every population with its budget, what was spent and what is left, charge by charge."""
    populations = dict.fromkeys(each.population for _, each in lines.charges())
    if budget is not None:
        populations |= {budget.population: None}
    if not populations:
        yield "No private training was charged, and the contract has no fl.privacy."
    for population in populations:
        own = budget if budget is not None and budget.population == population else None
        yield from _of_population(lines, population, own)


def summary_words(lines: LedgerLines, budget: PrivacyBudget | None) -> str | None:
    """What was spent of the contract's population, in a line; None without a budget."""
    if budget is None:
        return None
    count = sum(1 for _ in lines.charges(budget.population))
    spent = spent_of(lines, budget)
    return (
        f"{budget.population}: epsilon {spent} of {budget.epsilon} spent in {count} trainings, at "
        f"delta {budget.delta:f} by {budget.unit}"
    )


def spent_of(lines: LedgerLines, budget: PrivacyBudget) -> Decimal:
    """Of the budget's population until now, at the delta that the contract has now."""
    if not any(True for _ in lines.charges(budget.population)):
        return Decimal(0)
    return lifetime_of(lines, budget.population, budget.delta)


def charged_words(home: Path) -> str | None:
    """The newest total of each population as it was charged, for whoever looks at the agent;
    whatever the ledger holds, this does not fail. What it is under today's contract is for
    `spent_lines` to say."""
    try:
        lines = PrivacyLedger(home).peek()
    except ConsortiaError as error:
        return f"{error.problem}: {error.found}"
    last = {each.population: each for _, each in lines.charges()}
    said = [
        f"{each.population}: epsilon {each.epsilon_lifetime} of {each.epsilon_budget} spent at "
        f"delta {each.delta:f} when it was charged last"
        for each in last.values()
    ]
    return "; ".join(said) or None


def rounds_left(lines: LedgerLines, last: Charged, budget: PrivacyBudget) -> int:
    """How many rounds as `last` the budget still holds, up to MOST_ROUNDS."""
    fitting, above = 0, MOST_ROUNDS + 1
    while above - fitting > 1:
        middle = (fitting + above) // 2
        steps = last.private_steps
        more = PrivateSteps(steps.sampling_rate, steps.noise_multiplier, steps.steps * middle)
        if _total(lines, budget, more) <= budget.epsilon:
            fitting = middle
        else:
            above = middle
    return fitting


def _of_population(
    lines: LedgerLines, population: str, budget: PrivacyBudget | None
) -> Iterator[str]:
    charges = [each for _, each in lines.charges(population)]
    yield f"population  {population}"
    if budget is None:
        yield "budget      none: the contract in force names another population, or none"
    else:
        yield f"budget      epsilon {budget.epsilon} at delta {budget.delta:f}, by {budget.unit}"
    if not charges:
        yield "spent       nothing"
        return
    delta = budget.delta if budget else charges[-1].delta
    total = lifetime_of(lines, population, delta)
    yield f"spent       epsilon {total} at delta {delta:f}, in {len(charges)} trainings"
    if budget is not None:
        left = max(budget.epsilon - total, Decimal(0))
        yield f"left        epsilon {left}; {_rounds(rounds_left(lines, charges[-1], budget))}"
    for each in charges:
        yield f"            {_charge(each)}"


def _rounds(number: int) -> str:
    if number >= MOST_ROUNDS:
        return f"{MOST_ROUNDS} rounds as the last one, or more"
    return f"{number} more {'round' if number == 1 else 'rounds'} as the last one"


def _charge(each: Charged) -> str:
    taken_back = "" if each.secret is not None else ", taken back after a restore"
    return (
        f"{each.at:%Y-%m-%d %H:%M} {each.run} round {each.round} attempt {each.attempt}: epsilon "
        f"{each.epsilon} ({each.steps} steps at rate {each.sampling_rate}, noise "
        f"{each.noise_multiplier}), total {each.epsilon_lifetime}{taken_back}"
    )


def _total(lines: LedgerLines, budget: PrivacyBudget, more: PrivateSteps) -> Decimal:
    try:
        return lifetime_of(lines, budget.population, budget.delta, more)
    except NoGuaranteeError:
        return budget.epsilon + 1
