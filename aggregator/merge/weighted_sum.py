"""A weighted sum of LoRA products of one module, read in chunks and never formed.

M = sum of B_t diag(c_t) A_t over the summands, (out x in). It is used through products with thin
matrices, each pass adding B (c * (A X)) or its transpose chunk by chunk, so memory is that of one
chunk (`target_view.most_ranks`) however many summands there are, and work is linear in them.

Deterministic for one order of the summands: float32 products, one BLAS thread, coefficients in
float64 applied to the thin side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from aggregator.merge.target_view import factors_of, most_ranks, ranks_of, shape_of
from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array
from data_contracts.protocol.records.adapter_layout import AdapterTarget

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Summand:
    """One source and a coefficient per rank, scaling and weight included: sum c_k b_k a_k."""

    source: AdapterSource
    coefficients: Float64Array

    @classmethod
    def uniform(cls, target: AdapterTarget, source: AdapterSource, weight: float) -> "Summand":
        """`weight` times the product scaling * B @ A of `source` at one module."""
        layout = source.layout
        return cls(source, np.full(ranks_of(layout, target), weight * layout.scaling_of(target)))


@dataclass(frozen=True)
class Chunk:
    """Some summands side by side: A (ranks x in), B (out x ranks), c (ranks,) in float64."""

    a: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor


@dataclass(frozen=True)
class WeightedSum:
    """The sum of `summands` at one module; at least one summand."""

    target: AdapterTarget
    summands: Sequence[Summand]
    _kept: list[Chunk] = field(default_factory=list, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in), as a merge sees the target."""
        return shape_of(self.target)

    @cached_property
    def stacked_rank(self) -> int:
        """Sum of the ranks of the summands, an upper bound of the rank of the sum."""
        return sum(len(summand.coefficients) for summand in self.summands)

    @cached_property
    def groups(self) -> tuple[tuple[Summand, ...], ...]:
        """The summands in order, cut so that no group stacks to more ranks than a chunk holds."""
        most = most_ranks(self.target, self.stacked_rank)
        groups: list[list[Summand]] = [[]]
        rank = 0
        for summand in self.summands:
            if groups[-1] and rank + len(summand.coefficients) > most:
                groups.append([])
                rank = 0
            groups[-1].append(summand)
            rank += len(summand.coefficients)
        return tuple(tuple(group) for group in groups)

    def chunk(self, index: int) -> Chunk:
        """One group side by side; the only chunk of a sum is read once and kept."""
        if self._kept:
            return self._kept[0]
        chunk = self._read(self.groups[index])
        if len(self.groups) == 1:
            self._kept.append(chunk)
        return chunk

    def chunks(self) -> Iterator[Chunk]:
        """Every chunk, in the order of the summands."""
        return (self.chunk(index) for index in range(len(self.groups)))

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """M x, (out x k) in float32, for x (in x k)."""
        result = torch.zeros(self.shape[0], x.shape[1])
        for chunk in self.chunks():
            result.addmm_(chunk.b, _scaled(chunk.c, chunk.a @ x))
        return result

    def transposed_times(self, y: torch.Tensor) -> torch.Tensor:
        """M^T y, (in x k) in float32, for y (out x k)."""
        result = torch.zeros(self.shape[1], y.shape[1])
        for chunk in self.chunks():
            result.addmm_(chunk.a.T, _scaled(chunk.c, chunk.b.T @ y))
        return result

    def dense(self) -> torch.Tensor:
        """The sum itself, (out x in) in float32, for whoever needs all of it; zero if empty."""
        result = torch.zeros(self.shape)
        for chunk in self.chunks() if self.summands else ():
            result.addmm_(chunk.b, _scaled(chunk.c, chunk.a))
        return result

    def _read(self, group: Sequence[Summand]) -> Chunk:
        """Factors side by side; B is copied column block by column block, A row block by block."""
        coefficients = np.concatenate([summand.coefficients for summand in group])
        ranks = len(coefficients)
        a: Float32Array = np.empty((ranks, self.shape[1]), dtype=np.float32)
        b: Float32Array = np.empty((self.shape[0], ranks), dtype=np.float32)
        at = 0
        for summand in group:
            end = at + len(summand.coefficients)
            a[at:end], b[:, at:end] = factors_of(summand.source, self.target)
            at = end
        return Chunk(torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(coefficients))


@dataclass(frozen=True)
class DenseMatrix:
    """A matrix (out x in) that is there in full, multiplied like a `WeightedSum`."""

    matrix: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.matrix.shape[0], self.matrix.shape[1]

    @property
    def squared_norm(self) -> float:
        """Squared Frobenius norm, summed in float64."""
        return float(self.matrix.to(torch.float64).square().sum())

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """M x, (out x k)."""
        return self.matrix @ x

    def transposed_times(self, y: torch.Tensor) -> torch.Tensor:
        """M^T y, (in x k)."""
        return self.matrix.T @ y


def _scaled(coefficients: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return (rows * coefficients[:, None]).to(torch.float32)
