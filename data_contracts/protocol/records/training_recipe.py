"""How a silo trains in a round, and which factors it trains under a merge rule."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from data_contracts.protocol.records.merge_spec import MergeRule
from data_contracts.protocol.wire_types import Count, DecimalString, Part, PositiveCount

TrainedFactors = Literal["both", "a", "b", "core"]
LEAST_STEPS_TO_SHARE_A = 2
"""A silo whose B is zero has no gradient for A in its first step."""


class TrainingRecipe(Part):
    """How a silo trains. `sequences_per_step` counts over all ranks of the silo.

    `trained_factors` says which factor of each pair is trained; the other stays as it was. With
    `core` both stay, and a matrix between them is trained.
    `proximal_mu` above 0 adds mu/2 |p - p_start|^2 to the loss (FedProx, Li et al. 2020).
    `least_steps`: a submission counts with so many of the `local_steps`; None: with all of them.
    Step k is the same one however many follow: its sequences, and its learning rate, which rises
    for `warmup_steps` and then stays.
    """

    local_steps: PositiveCount
    sequences_per_step: PositiveCount
    sequence_length: Annotated[int, Field(ge=16, le=1_000_000)]
    learning_rate: DecimalString
    warmup_steps: Count
    weight_decay: DecimalString
    max_gradient_norm: DecimalString
    seed: Count
    trained_factors: TrainedFactors = "both"
    proximal_mu: DecimalString = Decimal("0")
    least_steps: Annotated[PositiveCount | None, Field(exclude_if=lambda value: value is None)] = (
        None
    )

    @property
    def fewest_steps(self) -> int:
        """Steps below which a submission does not count."""
        return self.local_steps if self.least_steps is None else self.least_steps

    @property
    def tokens_per_round(self) -> int:
        """Upper bound on the tokens that one silo can train on in one round."""
        return self.tokens_in(self.local_steps)

    def tokens_in(self, steps: int) -> int:
        """Upper bound on the tokens that so many steps can be trained on."""
        return steps * self.sequences_per_step * self.sequence_length


def trained_factors(rule: MergeRule, round_number: int, *, is_first: bool) -> TrainedFactors:
    """Which factors silos train under `rule` in a round; see `merge_spec.MergeRule`.

    `is_first`: nothing has been published yet. Then B is zero, and with it A's gradient.
    """
    if rule in ("frozen_a", "fedsvd"):
        return "b"
    if rule == "fed_sb":
        return "both" if is_first else "core"
    if rule == "alternating":
        return "b" if is_first or round_number % 2 else "a"
    return "both"
