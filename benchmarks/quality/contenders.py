"""Who competes: every merge rule, server optimizer and option that the product has, by name.

A contender with `tuned_as` takes the learning rate that was best for the contender of that name:
its own knob is what is looked at, the rest stays the same.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from aggregator.settings.merge import MergeSection
from benchmarks.quality.settings import Settings
from data_contracts.protocol.records.merge_spec import (
    DiLoCo,
    FedAdam,
    FedAvg,
    FedAvgM,
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
_UNIFORM_RULES: tuple[MergeRule, ...] = ("average", "frozen_a", "alternating", "fedsvd")


@dataclass(frozen=True)
class Contender:
    """A way to federate. `ranks` are those of the silos, in turn; None is the run's own rank."""

    name: str
    merge: MergeSpec
    ranks: tuple[int, ...] | None = None
    proximal_mu: float = 0.0
    compression: Compression = "none"
    tuned_as: str | None = None


def contenders(settings: Settings) -> tuple[Contender, ...]:
    """All of them, the default first."""
    mixed = settings.mixed_ranks
    return (
        Contender(DEFAULT, _default()),
        Contender("heavy_ball_0.5", _merge("stack_truncate", HeavyBall(momentum=Decimal("0.5")))),
        Contender("stack_truncate", _merge("stack_truncate")),
        *(Contender(rule, _merge(rule)) for rule in _UNIFORM_RULES),
        Contender("residual", _merge("residual", residual_rank=settings.residual_rank)),
        Contender("stack_truncate_mixed_ranks", _merge("stack_truncate"), ranks=mixed),
        Contender("zero_pad_mixed_ranks", _merge("zero_pad"), ranks=mixed),
        Contender("fedavgm", _merge("stack_truncate", FedAvgM())),
        Contender("fedavgm_0.5", _merge("stack_truncate", FedAvgM(momentum=Decimal("0.5")))),
        Contender("fedadam", _merge("stack_truncate", FedAdam())),
        Contender("diloco", _merge("stack_truncate", DiLoCo())),
        Contender("fedprox", _default(), proximal_mu=0.01, tuned_as=DEFAULT),
        Contender("int8", _default(), compression="int8", tuned_as=DEFAULT),
        Contender("int4", _default(), compression="int4", tuned_as=DEFAULT),
    )


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
