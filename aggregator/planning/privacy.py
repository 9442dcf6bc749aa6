"""The differential privacy of a plan, what no private plan can have, and what one costs a silo."""

from decimal import Decimal

from aggregator.planning.feasibility import impossible
from aggregator.settings.federation import FederationSettings
from data_contracts.privacy.accountant import NoGuaranteeError, PrivateSteps, epsilon_of
from data_contracts.protocol.records.privacy_terms import PrivacyTerms, private_fault, rate_of
from data_contracts.protocol.records.training_recipe import TrainingRecipe

EXAMPLE_UNITS, EXAMPLE_DELTA = 1_000, Decimal("0.00001")


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
    """What a round would be charged at a silo of 1,000 units, in a sentence; None without privacy.

    Raises FederationOperatorError where that means nothing.
    """
    if settings.privacy is None:
        return None
    recipe = settings.recipe
    rate = rate_of(recipe.sequences_per_step, EXAMPLE_UNITS)
    steps = PrivateSteps(rate, settings.privacy.noise_multiplier, recipe.local_steps)
    try:
        epsilon = epsilon_of([steps], EXAMPLE_DELTA)
    except NoGuaranteeError as error:
        raise impossible(error.expected, error.found, error.action) from None
    unit = f"{settings.privacy.unit}s"
    return (
        f"privacy: a silo of {EXAMPLE_UNITS:,} {unit} is charged an epsilon of {epsilon} for this "
        f"round, at a delta of {EXAMPLE_DELTA:f}; one of more {unit} less"
    )
