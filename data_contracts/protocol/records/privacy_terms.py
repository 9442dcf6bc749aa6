"""Differential privacy at the silo: what a plan asks for, and what a silo says that it gives.

Each step of a private training draws every unit with the same probability, cuts each unit's
gradient to a norm, sums, and adds Gaussian noise once (Abadi et al. 2016). Neighbouring data sets
differ by one unit: a record, or all records of a subject.
"""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from data_contracts.protocol.records.model_family import FamilyTask, ModelFamily
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from data_contracts.protocol.wire_types import (
    DecimalString,
    Digest,
    Part,
    PositiveCount,
    RuleId,
)

PrivacyUnit = Literal["record", "subject"]
JOINT_LOSSES: frozenset[ModelFamily] = frozenset({"dual-encoder"})
"""Families in which every record of a batch is told apart from the others, so that one record moves
the gradients of all."""

ClippingNorm = Annotated[DecimalString, Field(gt=0, le=1_000_000)]
NoiseMultiplier = Annotated[DecimalString, Field(ge=Decimal("0.01"), le=1_000)]
SamplingRate = Annotated[DecimalString, Field(gt=0, le=1)]
MOST_EPSILON = 1_000
"""Above it a number says nothing: the odds of a guess may change by e to that power."""
Epsilon = Annotated[DecimalString, Field(gt=0, le=MOST_EPSILON)]
Delta = Annotated[DecimalString, Field(gt=0, lt=1)]


class PrivacyTerms(Part):
    """What silos do in every step of a private plan.

    `clipping_norm`: L2 norm, over all trained tensors together, that a unit's gradient is cut to.
    `noise_multiplier`: standard deviation of the noise on the sum of a step, in clipping norms.
    `records_per_unit`: at most so many records of a subject that is drawn are used in that step;
    their gradients are averaged. A unit's own loss is the mean over what its records ask.
    How many units a step draws on average is the recipe's `sequences_per_step`.
    """

    unit: PrivacyUnit
    clipping_norm: ClippingNorm
    noise_multiplier: NoiseMultiplier
    records_per_unit: PositiveCount = 1


class ChargedSteps(Part):
    """What a private training was charged: its steps, and what they and all before them reveal."""

    population: RuleId
    unit: PrivacyUnit
    sampling_rate: SamplingRate
    noise_multiplier: NoiseMultiplier
    steps: PositiveCount
    epsilon: Epsilon
    epsilon_lifetime: Epsilon
    epsilon_budget: Epsilon
    delta: Delta
    entries: PositiveCount


class PrivacyStatement(ChargedSteps):
    """What a silo signs of one private training, charged before anything of it leaves.

    What it covers and what it does not is `data_contracts.privacy.assumptions`.

    `population`: of units, as its data contract names it. `sampling_rate`: of each unit in each
    step. `epsilon` is that of this training alone, `epsilon_lifetime` of all that was charged to
    the population so far, this one included; both at `delta`, rounded up. `entries`: how many
    trainings that were; `ledger_digest`: of the ledger's last line, which names all before it.
    """

    ledger_digest: Digest


def rate_of(expected_units: int, units: int) -> Decimal:
    """The rate at which a step draws `expected_units` of `units` on average, or slightly more:
    rounded up to three places, so that it does not tell the exact number of units."""
    rate = Decimal(expected_units) / Decimal(units)
    digits = rate.adjusted() - 2
    return min(Decimal(1), rate.quantize(Decimal(1).scaleb(digits), rounding="ROUND_CEILING"))


def private_fault(
    recipe: TrainingRecipe, task: FamilyTask, *, has_copies: bool
) -> tuple[str, str] | None:
    """What is expected and what is found where no training by `recipe` can be private."""
    if recipe.least_steps is not None:
        return "no least_steps: a number of steps that is known afterwards is not charged before", (
            str(recipe.least_steps)
        )
    if recipe.proximal_mu != 0:
        return "a proximal_mu of 0: what is clipped and hidden are gradients of single records", (
            str(recipe.proximal_mu)
        )
    if task.family in JOINT_LOSSES:
        return "a family whose loss is a sum over records", f"{task.family}, whose is of pairs"
    if has_copies:
        return "no counted copies: silos with the same records would share one budget", "some"
    return None
