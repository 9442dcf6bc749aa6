"""The differential privacy of a plan, what no private plan can have, and what one costs a silo."""

from decimal import Decimal
from pathlib import Path

from aggregator.planning.feasibility import impossible
from aggregator.settings.federation import FederationSettings
from data_contracts.dataset.contract import load_contract
from data_contracts.dataset.contract.privacy_budget import PrivacyBudget
from data_contracts.errors import DataStewardError
from data_contracts.privacy.accountant import NoGuaranteeError, PrivateSteps, epsilon_of
from data_contracts.protocol.records.privacy_terms import PrivacyTerms, private_fault, rate_of
from data_contracts.protocol.records.training_recipe import TrainingRecipe

EXAMPLE_UNITS, EXAMPLE_DELTA = (100, 1_000, 10_000), Decimal("0.00001")


def privacy_terms(settings: FederationSettings, recipe: TrainingRecipe) -> PrivacyTerms | None:
    """None where nothing is asked for; FederationOperatorError for what cannot be private."""
    if settings.privacy is None:
        return None
    copies = bool(settings.copies.counted)
    fault = private_fault(recipe, settings.task.learned, has_copies=copies)
    if fault is not None:
        raise impossible(
            f"{fault[0]}, in a plan with privacy",
            fault[1],
            "correct it in federation.toml, or remove [privacy]; docs/privacy.md says what can be "
            "private",
        )
    return settings.privacy.terms


def example_cost(settings: FederationSettings) -> str | None:
    """What a round would be charged at silos of three sizes, in a sentence; None without privacy.

    Raises FederationOperatorError where that means nothing at the largest of them.
    """
    if settings.privacy is None:
        return None
    costs = [_cost(settings, units) for units in EXAMPLE_UNITS]
    if isinstance(costs[-1], NoGuaranteeError):
        fault = costs[-1]
        raise impossible(fault.expected, fault.found, fault.action) from None
    said = [
        f"{units:,}: {'no guarantee' if isinstance(cost, NoGuaranteeError) else cost}"
        for units, cost in zip(EXAMPLE_UNITS, costs, strict=True)
    ]
    return (
        f"privacy: a round is charged, by the number of {settings.privacy.unit}s that a silo has, "
        f"an epsilon of {', '.join(said)}, at a delta of {EXAMPLE_DELTA:f}; every attempt of it "
        "is charged, also one that fails"
    )


def silos_that_refuse(settings: FederationSettings, directory: Path) -> list[str]:
    """A sentence for each contract filed in `directory` under which no round of these settings is
    trained: without a budget, or with one by subjects, in a private one; with one, in a plain one.
    """
    said = []
    for path in sorted(directory.glob("*.yaml")):
        try:
            budget = load_contract(path).terms.privacy
        except DataStewardError:
            continue  # Signing and planning say what is wrong with it.
        why = _why_refused(settings, budget)
        if why is not None:
            said.append(f"{path.stem} will refuse the round: its contract {why}")
    return said


def _why_refused(settings: FederationSettings, budget: PrivacyBudget | None) -> str | None:
    if settings.privacy is None:
        return None if budget is None else "has fl.privacy, and federation.toml no [privacy]"
    if budget is None:
        return "has no fl.privacy"
    if budget.unit == "subject" and settings.privacy.unit == "record":
        return "has a budget by subjects, and federation.toml protects records"
    return None


def _cost(settings: FederationSettings, units: int) -> Decimal | NoGuaranteeError:
    if settings.privacy is None:
        raise ValueError("expected settings with privacy")
    recipe = settings.recipe
    rate = rate_of(recipe.sequences_per_step, units)
    steps = PrivateSteps(rate, settings.privacy.noise_multiplier, recipe.local_steps)
    try:
        return epsilon_of([steps], EXAMPLE_DELTA)
    except NoGuaranteeError as error:
        return error
