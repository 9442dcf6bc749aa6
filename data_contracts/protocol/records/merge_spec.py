"""How a round merges: the rule, the server optimizer and the defence, named in the plan.

Everything here is data with a published meaning; which rules exist is decided by the code of both
sides, never by the plan.
"""

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from data_contracts.protocol.wire_types import Count, DecimalString, Part, PositiveCount

MergeRule = Literal[
    "stack_truncate",
    "average",
    "frozen_a",
    "alternating",
    "fedsvd",
    "residual",
    "zero_pad",
    "shared_a",
    "sketch",
    "fed_sb",
]
"""`stack_truncate`: the weighted sum of products, cut to the adapter's rank.
`average`: A and B averaged separately (FedIT, Zhang et al. 2024).
`frozen_a`: silos train B only, A stays that of the seed (FFA-LoRA, Sun et al. 2024).
`alternating`: silos train B in odd rounds and A in even ones (RoLoRA, Chen et al. 2024).
`fedsvd`: silos train B only; after each round A becomes the right singular vectors of B A
(FedSVD, Lee et al. 2025).
`residual`: `average`, and what it misses goes into a published residual (FedEx-LoRA, Singhal et
al. 2024).
`zero_pad`: lower ranks padded with zeros, then `average` (HetLoRA, Cho et al. 2024); a baseline.
`shared_a`: silos train both factors, send A alone, which is averaged, and keep B (FedSA-LoRA, Guo
et al. 2024, arXiv:2410.01463).
`sketch`: `stack_truncate` in confidential mode, from sums of thin images of each product (Tropp
et al. 2017).
`fed_sb`: silos train and send a core between bases that are fixed for the round (Fed-SB, Singhal et
al. 2025, arXiv:2502.15436), once a first round of whole pairs has made them."""

REBASING_RULES: frozenset[MergeRule] = frozenset({"stack_truncate", "fedsvd", "sketch", "fed_sb"})
"""Rules whose new factors are not combinations of the silos' factors."""

MIXED_RANK_RULES: frozenset[MergeRule] = frozenset({"stack_truncate", "zero_pad", "sketch"})
"""Rules under which silos may train different ranks."""

SHARED_FACTOR_RULES: frozenset[MergeRule] = frozenset(
    {"frozen_a", "alternating", "fedsvd", "shared_a"}
)
"""Rules under which what every silo sends lies in one space, so that entries of it compare: one
factor is that of the starting adapter, or A alone is sent."""

PRODUCT_RULES: frozenset[MergeRule] = frozenset(
    {"stack_truncate", "frozen_a", "alternating", "fedsvd", "shared_a", "fed_sb"}
)
"""Rules that compute a weighted sum of the silos' deltas, so a defence can choose the weights."""

OPTIMIZED_RULES: frozenset[MergeRule] = frozenset(
    {"stack_truncate", "shared_a", "sketch", "fed_sb"}
)
"""Rules whose whole change, of products or of the tensors themselves, a server optimizer steps on.
They are those that carry on the last change."""

MASKED_RULES: frozenset[MergeRule] = frozenset(
    {"average", "frozen_a", "alternating", "fedsvd", "shared_a", "sketch", "fed_sb"}
)
"""Rules that are linear in what silos send, so that the weighted sum of it is enough."""


Rate = Annotated[DecimalString, Field(gt=0)]
Decay = Annotated[DecimalString, Field(ge=0, lt=1)]


class FedAvg(Part):
    """The new adapter is start + learning_rate x delta (McMahan et al. 2017 at 1)."""

    name: Literal["fedavg"] = "fedavg"
    learning_rate: Rate = Decimal("1")


class HeavyBall(Part):
    """Momentum without a state: start + learning_rate x delta + momentum x (start - earlier).

    `earlier` is what the last published round started from (Polyak 1964). What that round's
    truncation dropped is not carried; otherwise it is FedAvgM, of two adapters that are there
    already instead of a dense state.
    """

    name: Literal["heavy_ball"] = "heavy_ball"
    learning_rate: Rate = Decimal("1")
    momentum: Decay = Decimal("0.3")


class FedExP(Part):
    """An extrapolated step: start + step x delta + momentum x (start - earlier).

    step = max(1, sum w_i |delta_i|^2 / (2 |sum w_i delta_i|^2)) over all modules together, at most
    `max_step` (Jhunjhunwala et al. 2023, equation 6 without epsilon). The less the silos' deltas
    agree, the more their mean has lost in length, and the further the step goes.
    """

    name: Literal["fedexp"] = "fedexp"
    max_step: Annotated[DecimalString, Field(ge=1, le=100)] = Decimal("2")
    momentum: Decay = Decimal("0")


class FedAvgM(Part):
    """Momentum on the merged delta (Hsu et al. 2019): v = momentum v + delta."""

    name: Literal["fedavgm"] = "fedavgm"
    learning_rate: Rate = Decimal("1")
    momentum: Decay = Decimal("0.9")


class FedAdam(Part):
    """Adam on the merged delta without bias correction (Reddi et al. 2021, algorithm 2)."""

    name: Literal["fedadam"] = "fedadam"
    learning_rate: Rate = Decimal("0.01")
    beta1: Decay = Decimal("0.9")
    beta2: Decay = Decimal("0.99")
    tau: Rate = Decimal("0.001")


class DiLoCo(Part):
    """SGD with Nesterov momentum on minus the delta (Douillard et al. 2023)."""

    name: Literal["diloco"] = "diloco"
    learning_rate: Rate = Decimal("0.7")
    momentum: Annotated[Decay, Field(gt=0)] = Decimal("0.9")


OPTIMIZER_STATE: dict[str, tuple[str, ...]] = {
    "fedavg": (),
    "heavy_ball": (),
    "fedexp": (),
    "fedavgm": ("momentum",),
    "diloco": ("momentum",),
    "fedadam": ("first_moment", "second_moment"),
}
"""What each optimizer keeps for every module, each a float32 matrix (out x in)."""

StatefulOptimizer = FedAvgM | FedAdam | DiLoCo
ServerOptimizer = Annotated[
    FedAvg | HeavyBall | FedExP | FedAvgM | FedAdam | DiLoCo, Field(discriminator="name")
]


class RobustSpec(Part):
    """The defence against up to `tolerated_silos` of the admitted silos: clip, mix, then choose.

    `clip`: each delta's norm cut to the median norm. `mixing`: each delta replaced by the mean of
    its nearest neighbours (NNM, Allouah et al. 2023). `rule`: how one delta is made of them.
    Tolerating 0 silos gives the token-weighted mean of the clipped deltas, whatever the rule.
    """

    tolerated_silos: Count
    clip: Literal["none", "median_norm"] = "median_norm"
    mixing: Literal["none", "nearest_neighbours"] = "nearest_neighbours"
    rule: Literal[
        "mean", "geometric_median", "centred_clipping", "multi_krum", "trimmed_mean", "median"
    ] = "geometric_median"

    @property
    def silos_needed(self) -> int:
        """Fewest admitted silos for which the rule keeps its promise.

        Multi-Krum: 2f + 3 (Blanchard et al. 2017). A rule of a majority: 2f + 1, and 5 because
        below that a median of silos says little. A clipped mean: 2f + 1, and 3 norms for a median.
        """
        if self.rule == "multi_krum":
            return 2 * self.tolerated_silos + 3
        if self.rule == "mean" and self.mixing == "none":
            return max(3, 2 * self.tolerated_silos + 1)
        return max(5, 2 * self.tolerated_silos + 1)

    @property
    def by_coordinates(self) -> bool:
        """Whether the rule works entry by entry, which needs a factor that all silos share."""
        return self.rule in {"trimmed_mean", "median"}

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.by_coordinates and (self.clip != "none" or self.mixing != "none"):
            raise ValueError("trimmed_mean and median take clip none and mixing none")
        return self


class MergeSpec(Part):
    """Merge rule, the cap on the tokens that count for one silo's weight, optimizer and defence.

    `residual_rank` is the rank of the published residual of the rule `residual`. `rank_weights`
    says whose tokens a rank of the product is weighted by: without it those of all silos that train
    the module, with `trained` those of the silos whose own rank reaches that far (raFLoRA 2026).
    `sketch_width` is that of the rule `sketch`; None: the least that the plan may have.
    """

    rule: MergeRule
    weight_cap_tokens: PositiveCount
    optimizer: ServerOptimizer = FedAvg()
    robust: RobustSpec | None = None
    residual_rank: Annotated[int, Field(ge=1, le=1024)] | None = None
    sketch_width: Annotated[
        int | None, Field(ge=1, le=65_536, exclude_if=lambda value: value is None)
    ] = None
    rank_weights: Annotated[
        Literal["trained"] | None, Field(exclude_if=lambda value: value is None)
    ] = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.residual_rank is None) == (self.rule == "residual"):
            raise ValueError("residual_rank goes with the rule residual and with no other")
        if self.robust and self.robust.by_coordinates and self.rule not in SHARED_FACTOR_RULES:
            raise ValueError(f"{self.robust.rule} needs a rule under which a factor is shared")
        if self.robust and not self.robust.by_coordinates and self.rule not in PRODUCT_RULES:
            raise ValueError("a defence on products needs a rule that merges products or B alone")
        carries_mean = self.rule == "average" and isinstance(self.optimizer, HeavyBall)
        if self.optimizer != FedAvg() and self.rule not in OPTIMIZED_RULES and not carries_mean:
            raise ValueError(
                "a server optimizer acts on products, or on shared factors alone: it needs "
                "stack_truncate, sketch, fed_sb or shared_a, and heavy_ball goes with average too"
            )
        if self.robust and self.robust.rule == "centred_clipping" and self.optimizer != FedAvg():
            raise ValueError("centred_clipping carries the merged delta: it needs fedavg at rate 1")
        if self.sketch_width is not None and self.rule != "sketch":
            raise ValueError("sketch_width goes with the rule sketch and with no other")
        if self.rank_weights and self.rule != "stack_truncate":
            raise ValueError("rank_weights are those of stacked products: they need stack_truncate")
        return self

    @property
    def is_rebasing(self) -> bool:
        """Whether the new factors are not combinations of the silos' factors."""
        return self.rule in REBASING_RULES or (
            self.rule == "average" and self.optimizer != FedAvg()
        )

    @property
    def carries_change(self) -> bool:
        """Whether the merge needs what the last published round started from."""
        centred = self.robust is not None and self.robust.rule == "centred_clipping"
        optimizer = self.optimizer
        extrapolated = isinstance(optimizer, FedExP) and optimizer.momentum > 0
        return (
            (centred and self.rule in OPTIMIZED_RULES)
            or isinstance(optimizer, HeavyBall)
            or extrapolated
        )

    @property
    def optimizer_state(self) -> tuple[str, ...]:
        """What the optimizer keeps from round to round."""
        return OPTIMIZER_STATE[self.optimizer.name]
