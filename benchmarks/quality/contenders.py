"""Who competes: every merge rule, server optimizer and option that the product has, by name.

A contender with `tuned_as` takes the learning rate that was best for the contender of that name:
its own knob is what is looked at, the rest stays the same.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

from aggregator.settings.merge import MergeSection
from benchmarks.quality.settings import Settings
from data_contracts.protocol.records.merge_spec import (
    DiLoCo,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedExP,
    HeavyBall,
    MergeRule,
    MergeSpec,
    ServerOptimizer,
)
from data_contracts.protocol.records.round_plan import Compression

DEFAULT = "heavy_ball"
"""The product's default, whose figures are the `federated` ones."""

Baseline = Literal["base", "silo_only", "centralised", "centralised_small_batches"]
BASELINES: tuple[Baseline, ...] = (
    "base",
    "silo_only",
    "centralised",
    "centralised_small_batches",
)

_NO_CAP = 2**40
MIXED, UNIFORM = "stack_truncate_mixed_ranks", "stack_truncate"
"""Silos of several ranks, and of the run's own rank everywhere."""
_IN_FEWER_ROUNDS = (DEFAULT, UNIFORM, "average", "fedexp", "fedexp_0.3", "heavy_ball_rate_1.5")
EPSILONS, TUNED_EPSILON = (1, 3, 8), 3
PRIVATE_RULES: tuple[MergeRule, ...] = ("frozen_a", "fedsvd")
_UNIFORM_RULES: tuple[MergeRule, ...] = ("average", "frozen_a", "alternating", "fedsvd")


@dataclass(frozen=True)
class Contender:
    """A way to federate. `ranks` are those of the silos, in turn; None is the run's own rank.

    `rounds` is how many rounds the steps are cut into; None is what the settings say. With
    `part_alone` a silo of lower rank trains without what its rank leaves out. `epsilon`: of all
    rounds together, where silos train with differential privacy.
    """

    name: str
    merge: MergeSpec
    ranks: tuple[int, ...] | None = None
    proximal_mu: float = 0.0
    compression: Compression = "none"
    tuned_as: str | None = None
    rounds: int | None = None
    part_alone: bool = False
    epsilon: int | None = None


def contenders(settings: Settings) -> tuple[Contender, ...]:
    """All of them, the default first."""
    mixed, further = settings.mixed_ranks, Decimal("1.5")
    return (
        Contender(DEFAULT, _default()),
        Contender("heavy_ball_0.5", _merge("stack_truncate", HeavyBall(momentum=Decimal("0.5")))),
        Contender(
            "heavy_ball_rate_1.5", _merge("stack_truncate", HeavyBall(learning_rate=further))
        ),
        Contender("fedexp", _merge("stack_truncate", FedExP())),
        Contender("fedexp_0.3", _merge("stack_truncate", FedExP(momentum=Decimal("0.3")))),
        Contender(UNIFORM, stacked()),
        Contender("stack_truncate_rank_8", stacked(), ranks=(max(mixed),)),
        Contender("sketch", MergeSection(rule="sketch").spec(_NO_CAP)),
        Contender("average_heavy_ball", _merge("average", HeavyBall())),
        Contender("fed_sb", _merge("fed_sb")),
        Contender("fed_sb_heavy_ball", _merge("fed_sb", HeavyBall())),
        Contender("fed_sb_rank_16", _merge("fed_sb", HeavyBall()), ranks=(16,)),
        *(Contender(rule, _merge(rule)) for rule in _UNIFORM_RULES),
        Contender("residual", _merge("residual", residual_rank=settings.residual_rank)),
        Contender(MIXED, stacked(), ranks=mixed),
        Contender(f"{MIXED}_part_alone", stacked(), ranks=mixed, part_alone=True),
        Contender(f"{MIXED}_trained", by_trained_ranks(), ranks=mixed),
        Contender("zero_pad_mixed_ranks", _merge("zero_pad"), ranks=mixed),
        Contender("fedavgm", _merge("stack_truncate", FedAvgM())),
        Contender("fedavgm_0.5", _merge("stack_truncate", FedAvgM(momentum=Decimal("0.5")))),
        Contender("fedadam", _merge("stack_truncate", FedAdam())),
        Contender("diloco", _merge("stack_truncate", DiLoCo())),
        Contender("fedprox", _default(), proximal_mu=0.01, tuned_as=DEFAULT),
        Contender("int8", _default(), compression="int8", tuned_as=DEFAULT),
        Contender("int4", _default(), compression="int4", tuned_as=DEFAULT),
    )


def in_fewer_rounds(settings: Settings) -> tuple[Contender, ...]:
    """The default and some others, with the same steps in fewer rounds, tuned again."""
    return tuple(
        replace(entrant, name=f"{entrant.name}_in_{rounds}_rounds", rounds=rounds)
        for rounds in settings.fewer_rounds
        for entrant in contenders(settings)
        if entrant.name in _IN_FEWER_ROUNDS
    )


def private_contenders() -> tuple[Contender, ...]:
    """Rules under which one factor alone is trained: a product of two noisy factors would have the
    square of the noise in it (Sun et al. 2024). Tuned at the epsilon in the middle."""
    return tuple(
        Contender(
            f"{rule}_epsilon_{epsilon}",
            _merge(rule),
            epsilon=epsilon,
            tuned_as=None if epsilon == TUNED_EPSILON else f"{rule}_epsilon_{TUNED_EPSILON}",
        )
        for rule in PRIVATE_RULES
        for epsilon in EPSILONS
    )


def stacked() -> MergeSpec:
    """`stack_truncate` without a server optimizer."""
    return _merge("stack_truncate")


def by_trained_ranks() -> MergeSpec:
    """The same with every rank averaged over the silos that train it."""
    return stacked().model_copy(update={"rank_weights": "trained"})


def _default() -> MergeSpec:
    """What a federation.toml without `[merge]` asks for."""
    return MergeSection().spec(_NO_CAP)


def _merge(
    rule: MergeRule, optimizer: ServerOptimizer | None = None, residual_rank: int | None = None
) -> MergeSpec:
    return MergeSpec(
        rule=rule,
        weight_cap_tokens=_NO_CAP,
        optimizer=optimizer or FedAvg(),
        residual_rank=residual_rank,
    )
