"""One local adapter, compressed with error feedback: what is sent, and what is kept for later.

With d the difference of a factor to its starting factor and e what earlier rounds left unsent:

    sent = Q(d + e),    e <- d + e - sent

(Seide et al. 2014; Karimireddy et al. 2019). Guaranteed in float32: the new e is the float32 number
nearest to the true d + e - sent. For d + e is taken with its rounding error (TwoSum, Knuth 1969),
and subtracting what was sent is exact (Sterbenz 1974), since a sent value that is not zero lies
within a factor of two of its original. So the sum of all that was sent plus the last e is the sum
of all d, bit for bit wherever each e is a float32 number, and otherwise within half a unit in the
last place of an e, itself at most half a scale, for each round.

A factor that the recipe freezes is sent as zeros and its e is kept for the round that trains it
again. A tensor that is trained whole is one factor, which no recipe freezes and no rule re-bases:
its e is carried as it is. The files of a round are a pure function of the inputs: a retry writes
the same bytes. Order: the factors and residual that stay here become durable after what is sent;
nothing may leave before `compress` returned and `ErrorFeedback.keep` recorded the round.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from data_contracts.adapters.adapter_format import (
    AdapterFile,
    adapter_entries,
    require_contribution,
)
from data_contracts.adapters.block_quantisation import Blocks, Scheme, dequantise, quantise
from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array, narrowed
from data_contracts.adapters.tensor_layout import safetensors_header
from data_contracts.adapters.whole_tensors import adds_something
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.training_recipe import TrainedFactors
from infra.processes.worker_threads import default_workers, in_order
from silo_agent.compression.rebased_error import ErrorProduct, RebasedError, rebased_error
from silo_agent.compression.streamed_file import StreamedFile, streamed_file, write_quantised


@dataclass(frozen=True)
class CarriedError:
    """What earlier rounds left unsent.

    `residual` holds the error of all tensors. When factors were re-based since, `factors` holds the
    true A and the sent B of that round, without whole tensors; see `rebased_error`.
    """

    residual: AdapterFile
    factors: AdapterFile | None

    def whole(self, target: AdapterTarget) -> Float32Array:
        """That of a tensor that is trained whole (out x in)."""
        return self.residual.module(target)[1]

    def module(
        self, target: AdapterTarget, a: Float32Array, b: Float32Array, trained: TrainedFactors
    ) -> RebasedError:
        """The error in the coordinates of the starting factors A (rank x in), B (out x rank)."""
        error = self.residual.module(target)
        if self.factors is None:
            return RebasedError(*error, squared_norm=0.0, lost=0.0)
        product = ErrorProduct(*error, *self.factors.module(target))
        return rebased_error(product, a, b, trained)


@dataclass(frozen=True)
class LocalRound:
    """What is compressed: the trained adapter, what it started from, how, and which factors moved.

    `starting` may be the wider adapter of the run; it is narrowed to the layout of `local`.
    """

    local: AdapterSource
    starting: AdapterSource
    scheme: Scheme
    trained: TrainedFactors

    @property
    def layout(self) -> AdapterLayout:
        """The silo's layout."""
        return self.local.layout


@dataclass(frozen=True)
class RoundFiles:
    """Where the round's files go; `factors` None when the merge rule does not re-base factors."""

    sent: Path
    residual: Path
    factors: Path | None


@dataclass(frozen=True)
class Compressed:
    """The files written, and the share (0 to 1) of the norm of the pairs' carried error that was
    lost."""

    sent: ArtifactRef
    residual: ArtifactRef
    factors: ArtifactRef | None
    lost_share: float


@dataclass(frozen=True)
class Fed:
    """One factor after error feedback: the blocks that are sent, their values, and the new e."""

    blocks: Blocks
    sent: Float32Array
    error: Float32Array


def compress(round_: LocalRound, carried: CarriedError | None, files: RoundFiles) -> Compressed:
    """Write what is sent and what is kept, with one module in memory per core.

    Raises SiloOperatorError when a frozen factor moved, values are absurd, or the disk is full, and
    UntrustedInputError when every B is zero and every whole tensor as it starts. Then no file is
    there that was not there before.
    """
    header = safetensors_header(adapter_entries(round_.layout))
    with ExitStack() as stack:
        residual = stack.enter_context(streamed_file(files.residual))
        residual.write(header)
        factors = stack.enter_context(streamed_file(files.factors)) if files.factors else None
        if factors:
            of_pairs = adapter_entries(round_.layout.without_wholes)
            factors.write(safetensors_header(of_pairs))
        run = _Run(round_, carried, residual, factors)
        sent = write_quantised(files.sent, round_.layout, round_.scheme, run.modules())
    kept = factors.artifact if factors else None
    return Compressed(sent, residual.artifact, kept, run.lost_share)


def feed(difference: Float32Array, carried: Float32Array | None, scheme: Scheme) -> Fed:
    """Q(d + e) and d + e - Q(d + e) of one factor; e None stands for zero."""
    total, rounding = (difference, None) if carried is None else _two_sum(difference, carried)
    blocks = quantise(total, scheme)
    sent = dequantise(blocks, total.size, scheme).reshape(total.shape)
    error = total - sent
    if rounding is not None:
        error += rounding
    return Fed(blocks, sent, error)


@dataclass(frozen=True)
class _Module:
    """One module of a round: what is sent and kept of its tensors, in the order of a file, and what
    became of its carried error."""

    fed: tuple[Fed, ...]
    contributes: bool
    factors: tuple[Float32Array, ...] = ()
    squared_norm: float = 0.0
    lost: float = 0.0


@dataclass
class _Run:
    """The modules of one `compress`, and the norms summed over them."""

    round_: LocalRound
    carried: CarriedError | None
    residual: StreamedFile
    factors: StreamedFile | None
    squared_norm: float = field(default=0.0, init=False)
    lost: float = field(default=0.0, init=False)

    @property
    def lost_share(self) -> float:
        return math.sqrt(self.lost / self.squared_norm) if self.squared_norm > 0 else 0.0

    def modules(self) -> Iterator[tuple[Blocks, ...]]:
        """Yields what is sent of each module, having kept what is not."""
        starting = narrowed(self.round_.starting, self.round_.layout)
        contributes = False
        make = partial(self._module, starting)
        with threadpool_limits(limits=1, user_api="blas"):
            for made in in_order(make, self.round_.layout.targets, default_workers()):
                contributes = contributes or made.contributes
                self.squared_norm += made.squared_norm
                self.lost += made.lost
                self.residual.write(*(fed.error for fed in made.fed))
                if self.factors:
                    self.factors.write(*made.factors)
                yield tuple(fed.blocks for fed in made.fed)
        require_contribution(contributes)

    def _module(self, starting: AdapterSource, target: AdapterTarget) -> _Module:
        if target.whole is not None:
            return self._whole(starting, target)
        start_a, start_b = starting.module(target)
        error = self._carried(target, start_a, start_b)
        local_a, local_b = self.round_.local.module(target)
        a = self._fed(target, "a", local_a - start_a, error.a if error else None)
        b = self._fed(target, "b", local_b - start_b, error.b if error else None)
        factors = (start_a + (a.sent + a.error), start_b + b.sent) if self.factors else ()
        norms = (error.squared_norm, error.lost) if error else (0.0, 0.0)
        return _Module((a, b), bool(local_b.any()), factors, *norms)

    def _whole(self, starting: AdapterSource, target: AdapterTarget) -> _Module:
        local = self.round_.local.module(target)[1]
        error = self.carried.whole(target) if self.carried else None
        fed = self._sent(target, "tensor", local - starting.module(target)[1], error)
        return _Module((fed,), adds_something(self.round_.layout, target, local))

    def _carried(
        self, target: AdapterTarget, a: Float32Array, b: Float32Array
    ) -> RebasedError | None:
        return self.carried.module(target, a, b, self.round_.trained) if self.carried else None

    def _fed(
        self, target: AdapterTarget, name: str, difference: Float32Array, e: Float32Array | None
    ) -> Fed:
        if self.round_.trained in ("both", name):
            return self._sent(target, f"factor {name}", difference, e)
        if difference.any():
            frozen = "a factor that the recipe left frozen"
            raise _unfit(target, f"factor {name}", frozen, "one that moved")
        zeros = np.zeros_like(difference)
        return Fed(quantise(zeros, self.round_.scheme), zeros, zeros if e is None else e)

    def _sent(
        self, target: AdapterTarget, what: str, difference: Float32Array, e: Float32Array | None
    ) -> Fed:
        scheme = self.round_.scheme
        fed = feed(difference, e, scheme)
        if not fed.blocks.scales.max() <= scheme.largest_scale:
            limit = f"a difference within {scheme.largest_scale * scheme.levels:g}"
            raise _unfit(target, what, limit, "a larger one")
        return fed


def _two_sum(x: Float32Array, y: Float32Array) -> tuple[Float32Array, Float32Array]:
    """float32(x + y) and its rounding error, exactly: (x - (total - part)) + (y - part)."""
    total = x + y
    part = total - x
    rounding = total - part
    np.subtract(x, rounding, out=rounding)
    np.subtract(y, part, out=part)
    rounding += part
    return total, rounding


def _unfit(target: AdapterTarget, what: str, expected: str, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"{what} of {target.module} in the local adapter",
        expected=expected,
        found=found,
        action="look into the training log; if the loss rose, ask for a lower learning rate",
    )
