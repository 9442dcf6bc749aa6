"""What a merge is made of, as one value that a thread, a process or another machine can take.

Weights are normalised as exact fractions over the silos that train a module, so where they sum to
one the starting adapter cancels exactly instead of being rounded in and out again.
"""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from importlib.metadata import version
from itertools import pairwise

import numpy as np
import torch

from aggregator.merge.exactness import EXACT_UP_TO_SILOS
from aggregator.merge.server_state import ServerState
from aggregator.merge.target_view import ranks_of
from aggregator.merge.weighted_sum import Float64Array, Summand
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.merge_spec import (
    MIXED_RANK_RULES,
    FedAvg,
    FedExP,
    HeavyBall,
    MergeSpec,
)
from data_contracts.protocol.records.training_recipe import TrainedFactors, trained_factors


@dataclass(frozen=True)
class LocalAdapter:
    """An admitted adapter: its gated source, the digest of its bytes and its weight in tokens.

    Its modules are those of the merge or some of them; its rank may be another one.
    """

    source: AdapterSource
    digest: str
    weight: int

    @cached_property
    def modules(self) -> frozenset[str]:
        """Names of the modules that the silo trains."""
        return frozenset(target.module for target in self.source.layout.targets)


@dataclass(frozen=True)
class DefenceWeights:
    """What a robust rule chose: the merged delta is sum c_i delta_i + centre x carried delta.

    `kept` is the part of each delta that clipping left, of which c_i is a multiple.
    """

    silos: tuple[float, ...]
    centre: float = 0.0
    kept: tuple[float, ...] = ()


@dataclass(frozen=True)
class RankWeights:
    """A silo's coefficients at its own ranks: (end, c) for each slice of ranks, ends ascending."""

    adapter: LocalAdapter
    slices: tuple[tuple[int, Fraction], ...]

    def at(self, rank: int) -> Fraction:
        """The coefficient at one rank, counted from 0; zero beyond the silo's own."""
        return next((weight for end, weight in self.slices if rank < end), Fraction(0))

    @property
    def coefficients(self) -> Float64Array:
        """c of every rank of the silo (rank,)."""
        lengths = np.diff([0, *(end for end, _ in self.slices)])
        return np.repeat([float(weight) for _, weight in self.slices], lengths)

    def summand(self, target: AdapterTarget) -> Summand:
        """The silo's product at one module, each of its ranks by the coefficient."""
        source = self.adapter.source
        return Summand(source, self.coefficients * source.layout.scaling_of(target))


@dataclass(frozen=True)
class MergeInputs:
    """Everything that decides the bytes of a merge; `locals` are in the order of their digests.

    `starting` is what silos started from, `earlier` what the round before started from,
    `residual` the starting residual, `server_state` the optimizer's. Digests name the bytes of each
    for the fingerprint. `defence` and `step` are chosen from the rest before the merge.
    `asks_exact_error`: the plan wants the error exact for any number of silos; `is_measured`: it is
    wanted at all.
    """

    layout: AdapterLayout
    merge: MergeSpec
    round_number: int
    locals: tuple[LocalAdapter, ...]
    starting: AdapterSource
    starting_digest: str | None = None
    earlier: AdapterSource | None = None
    earlier_digest: str | None = None
    residual: AdapterSource | None = None
    residual_digest: str | None = None
    server_state: ServerState | None = None
    server_state_digest: str | None = None
    defence: DefenceWeights | None = None
    step: float | None = None
    asks_exact_error: bool = False
    is_measured: bool = True

    @property
    def is_error_exact(self) -> bool:
        """Whether the error is measured on all of the sum, whose cost is quadratic in the silos."""
        return self.asks_exact_error or len(self.locals) <= EXACT_UP_TO_SILOS

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all that decides the result, the same on every machine.

        A defence's weights and the step follow from the rest, but to the last bit only on one
        machine.
        """
        # It seeds the sketch, so its names stay whatever the fields are called.
        described = {
            "layout": self.layout.model_dump(mode="json"),
            "merge": self.merge.model_dump(mode="json"),
            "round": self.round_number,
            "locals": [[a.digest, a.weight, a.source.layout.model_dump()] for a in self.locals],
            "starting": [self.starting_digest, self.earlier_digest],
            "beside": [self.residual_digest, self.server_state_digest],
        }
        if self.asks_exact_error:
            described["error"] = "exact"
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """`digest` together with the arithmetic of this machine: what decides the bytes."""
        arithmetic = (torch.__version__, np.__version__, platform.machine(), version("consortia"))
        capability = torch.backends.cpu.get_cpu_capability()
        described = repr((self.digest, self.defence, self.step, *arithmetic, capability))
        return hashlib.sha256(described.encode()).hexdigest()

    @cached_property
    def seed(self) -> int:
        """Seed of the sketch: known only when every submission is, so none can be made for it."""
        return int(self.digest[:15], 16)

    @property
    def trained(self) -> TrainedFactors:
        """Which factors the silos trained."""
        is_first = isinstance(self.starting, InitialAdapter)
        return trained_factors(self.merge.rule, self.round_number, is_first=is_first)

    def trainers(self, target: AdapterTarget) -> list[LocalAdapter]:
        """The silos that train a module."""
        return [a for a in self.locals if target.module in a.modules]

    def shares(self, target: AdapterTarget) -> list[tuple[LocalAdapter, Fraction]]:
        """The silos that train a module, weighted by tokens, summing to one."""
        trainers = self.trainers(target)
        total = sum(adapter.weight for adapter in trainers)
        return [(adapter, Fraction(adapter.weight, total)) for adapter in trainers]

    def product_summands(self, target: AdapterTarget) -> list[Summand]:
        """start + carried + sum of c_i delta_i, those with a coefficient of zero left out.

        `carried` is a part of the last published change, for a centre or a heavy ball.
        A silo of lower rank started from the leading part of the start, so its delta takes away
        only that part; what is left of the start is a coefficient per rank.
        """
        return self._summands(target, kept_of_start=1)

    def delta_summands(self, target: AdapterTarget) -> list[Summand]:
        """carried + sum of c_i delta_i."""
        return self._summands(target, kept_of_start=0)

    def _summands(self, target: AdapterTarget, kept_of_start: int) -> list[Summand]:
        weights, carried = self.rank_weights(target), self._carried()
        summands = weighted_deltas(target, self.starting, weights, kept_of_start + carried)
        if carried and self.earlier is not None:
            summands.append(Summand.uniform(target, self.earlier, -float(carried)))
        return summands

    def delta_weights(self, target: AdapterTarget) -> list[tuple[LocalAdapter, Fraction]]:
        """c_i of every silo whose delta counts at a module; not always summing to one."""
        rate = self._rate()
        if self.defence is None:
            return [(adapter, rate * share) for adapter, share in self.shares(target)]
        pairs = zip(self.locals, self.defence.silos, strict=True)
        return [(adapter, rate * Fraction(weight)) for adapter, weight in pairs if weight]

    def rank_weights(self, target: AdapterTarget) -> list[RankWeights]:
        """c_i of every silo at each of its own ranks, the same at all unless the plan says so.

        With `rank_weights = trained` a rank is averaged over the silos that train it, by tokens; a
        whole tensor over all.
        """
        if self.merge.rank_weights is None or self.defence is not None or target.whole is not None:
            uniform = self.delta_weights(target)
            ranks = [ranks_of(a.source.layout, target) for a, _ in uniform]
            return [RankWeights(a, ((n, w),)) for n, (a, w) in zip(ranks, uniform, strict=True)]
        trainers, rate = self.trainers(target), self._rate()
        ends = sorted({adapter.source.layout.rank for adapter in trainers})
        totals = {
            end: sum(a.weight for a in trainers if a.source.layout.rank >= end) for end in ends
        }
        return [
            RankWeights(
                adapter,
                tuple(
                    (end, rate * Fraction(adapter.weight, totals[end]))
                    for end in ends
                    if end <= adapter.source.layout.rank
                ),
            )
            for adapter in trainers
        ]

    def _carried(self) -> Fraction:
        """Coefficient of the last published change, start - earlier; before there is one, zero."""
        centre = self._rate() * Fraction(self.defence.centre) if self.defence else Fraction(0)
        optimizer = self.merge.optimizer
        if isinstance(optimizer, HeavyBall | FedExP) and self.earlier is not None:
            return centre + Fraction(optimizer.momentum)
        return centre

    def _rate(self) -> Fraction:
        """What every delta is multiplied with; an optimizer with a state has a rate of its own."""
        optimizer = self.merge.optimizer
        if isinstance(optimizer, FedAvg | HeavyBall):
            return Fraction(optimizer.learning_rate)
        return Fraction(1 if self.step is None else self.step)


def weighted_deltas(
    target: AdapterTarget,
    start: AdapterSource,
    weights: Sequence[RankWeights],
    kept_of_start: Fraction | int = 0,
) -> list[Summand]:
    """kept_of_start x start + sum of c_i (local_i - its part of the start) at one module."""
    summands = [own.summand(target) for own in weights]
    left = _left_of_start(ranks_of(start.layout, target), weights, Fraction(kept_of_start))
    if left.any():
        summands.append(Summand(start, left * start.layout.scaling_of(target)))
    return summands


def _left_of_start(whole: int, weights: Sequence[RankWeights], kept: Fraction) -> Float64Array:
    """Coefficient of each rank of the start (whole,): what no delta takes away."""
    left = np.full(whole, float(kept))
    ends = {min(end, whole) for own in weights for end, _ in own.slices}
    for rank, following in pairwise([0, *sorted(ends), whole]):
        left[rank:following] = float(kept - sum(own.at(rank) for own in weights))
    return left


def sorted_locals(adapters: Sequence[LocalAdapter]) -> tuple[LocalAdapter, ...]:
    """In the order of their digests, so that the order of the submissions does not matter.

    Raises FederationOperatorError without adapters or with a weight below one token.
    """
    if not adapters or min(adapter.weight for adapter in adapters) < 1:
        raise FederationOperatorError(
            "merge",
            expected="at least one adapter, each with a weight of at least 1 token",
            found=f"weights {[adapter.weight for adapter in adapters]}",
            action="close the round again from its evidence; admission never gives such weights",
        )
    return tuple(sorted(adapters, key=lambda adapter: (adapter.digest, adapter.weight)))


def require_layouts(inputs: MergeInputs) -> None:
    """Raise FederationOperatorError unless the layouts go together under the rule."""
    layout, rule = inputs.layout, inputs.merge.rule
    sources = [adapter.source.layout for adapter in inputs.locals]
    for own in [*sources, inputs.starting.layout]:
        if not set(own.targets) <= set(layout.targets):
            raise _layouts("modules and shapes of the plan", "others")
    if rule not in MIXED_RANK_RULES and any(own != layout for own in sources):
        raise _layouts(f"one layout for all silos under the rule {rule}", "several")
    if rule == "zero_pad" and any(own.rank > layout.rank for own in sources):
        raise _layouts(f"ranks of at most {layout.rank}, to which zeros are added", "a higher rank")


def _layouts(expected: str, found: str) -> FederationOperatorError:
    return FederationOperatorError(
        "adapters to merge",
        expected=expected,
        found=found,
        action="open each adapter with the layout that the plan gives its silo",
    )
