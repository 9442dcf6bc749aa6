"""The best approximation of given rank of a weighted sum, as a LoRA pair.

Two ways to the same result. `exact_truncation` stacks all factors, takes QR of both and the SVD of
the small core: exact, by Eckart-Young the best of its rank, and the reference. `sketch_truncation`
finds the leading row and column spaces with a seeded Gaussian sketch of width rank + 8 and power
iterations (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1): memory of one chunk, work
linear in the summands, error within a percent of the best one.

Deterministic: one BLAS thread, canonical signs; the same summands in the same order give the same
bits on the same wheels and kind of CPU.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch

from aggregator.merge.exactness import column_squares
from aggregator.merge.factor_sources import PairSource
from aggregator.merge.gram import squared_norm
from aggregator.merge.weighted_sum import Float64Array, Summand, WeightedSum
from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.errors import UnusableMergeError

KAIMING_ROW_NORM = 3.0**-0.5
"""Expected row norm of PEFT's initial A: uniform in +-1/sqrt(in), so E|row|^2 = 1/3."""
EXACT_UP_TO_RANK = 48
"""Up to this stacked rank QR and SVD of the whole stack cost less than a sketch."""
ROUNDING = 1e-5
"""Share of discarded energy below which a norm in float32 says nothing about it."""
OVERSAMPLING = 8
"""Columns of the sketch beyond the rank (Halko et al. recommend 5 to 10)."""
PASS_GAIN = 0.003
"""A pass that gains less of the discarded energy than this is the last but for parity."""
MAX_PASSES = 13
"""Odd, so that the last pass gives the rows; reached by no spectrum that was tried."""


class Operator(Protocol):
    """A matrix (out x in) that is only multiplied."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        ...

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """M x for x (in x k)."""
        ...

    def transposed_times(self, y: torch.Tensor) -> torch.Tensor:
        """M^T y for y (out x k)."""
        ...


@dataclass(frozen=True)
class LoraPair:
    """A (rank x in) with orthogonal rows and B (out x rank); scaling * B @ A is the product.

    `kept_norm` is the squared Frobenius norm of that product, `squared_norm` that of the matrix
    which it approximates. Where the latter is estimated, `beyond` is what each probe says of the
    part of the matrix that the sketch did not reach, (PROBES,), and `captured` is that of the rest.
    """

    a: Float32Array
    b: Float32Array
    kept_norm: float
    squared_norm: float
    beyond: Float64Array | None = None
    captured: float = 0.0

    @property
    def discarded_norm(self) -> float:
        """Squared Frobenius norm of what truncation dropped."""
        return max(self.squared_norm - self.kept_norm, 0.0)


@dataclass(frozen=True)
class KnownNorm:
    """The squared Frobenius norm of the whole matrix."""

    squared: float

    def beyond(self, _basis: torch.Tensor, captured: float, /) -> Float64Array:
        """Squared norm of what lies outside the span of a basis that holds `captured`, (1,)."""
        return np.array([max(self.squared - captured, 0.0)])


@dataclass(frozen=True)
class ProbedMatrix:
    """The images of random probes, (out x PROBES)."""

    image: torch.Tensor

    def beyond(self, basis: torch.Tensor, _captured: float, /) -> Float64Array:
        """As each probe says of what lies outside the span of `basis` (out x k), (PROBES,)."""
        return column_squares(self.image - basis @ (basis.T @ self.image))


def truncated(
    total: WeightedSum, rank: int, scaling: float, seed: int, probes: torch.Tensor | None = None
) -> LoraPair:
    """The best pair of `rank` for a weighted sum, or one within a percent of it.

    What it discards is exact, or estimated by `probes` (in x PROBES); work with them is linear in
    the summands.
    """
    if total.stacked_rank <= max(EXACT_UP_TO_RANK, rank):
        chunks = list(total.chunks())
        left = torch.cat([chunk.b.to(torch.float64) * chunk.c for chunk in chunks], dim=1)
        right = torch.cat([chunk.a for chunk in chunks]).to(torch.float64)
        return exact_truncation(left, right, rank, scaling)
    if probes is not None:
        return sketch_truncation(total, probes, rank, scaling, seed)
    pair = sketch_truncation(total, squared_norm(total), rank, scaling, seed)
    if pair.discarded_norm < ROUNDING * pair.squared_norm:
        # What is left is of the size of the norm's own rounding: measure the difference itself.
        return replace(pair, squared_norm=pair.kept_norm + _squared_error(total, pair, scaling))
    return pair


def exact_truncation(
    left: torch.Tensor, right: torch.Tensor, rank: int, scaling: float, *, fresh_rows: bool = False
) -> LoraPair:
    """The best pair of `rank` for left @ right, (out x R) and (R x in), float64.

    `fresh_rows` gives every row of A the norm of an initial one; see `_lora_pair`.
    """
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(_widened(right.T, rank))
    core = r_left @ r_right[:, : right.shape[0]].T
    u, s, vh = torch.linalg.svd(core, full_matrices=True)
    return _lora_pair(q_left @ u, s, vh @ q_right.T, rank, scaling, fresh_rows=fresh_rows)


def sketch_truncation(
    operator: Operator, whole: float | torch.Tensor, rank: int, scaling: float, seed: int
) -> LoraPair:
    """A pair of `rank` for the matrix of `operator`.

    `whole` is its squared Frobenius norm, or (in x PROBES) random probes that estimate it: further
    columns of the first pass.

    Passes over the matrix go on until one gains less than `PASS_GAIN` of the energy that is still
    discarded; where the spectrum decays, as that of trained adapters does, the first two suffice.
    `seed` must not be known to whoever supplies the matrix before it is supplied: what is
    orthogonal to the sketch could be overlooked.
    """
    out_features, in_features = operator.shape
    width = min(rank + OVERSAMPLING, out_features, in_features)
    first = _gaussian(seed, in_features, width)
    known: KnownNorm | ProbedMatrix
    if isinstance(whole, float):
        basis, known = _basis(operator.times(first)), KnownNorm(whole)
    else:
        image = operator.times(torch.cat([first, whole], dim=1))
        basis, known = _basis(image[:, :width]), ProbedMatrix(image[:, width:])
    basis, image = _settled(operator, basis, known, rank)
    q, r = torch.linalg.qr(image.to(torch.float64))
    u, s, vh = torch.linalg.svd(r.T)
    pair = _lora_pair(basis.to(torch.float64) @ u, s, vh @ q.T, rank, scaling)
    captured = pair.squared_norm
    beyond = known.beyond(basis, captured)
    norm = captured + float(beyond.mean())
    if isinstance(known, KnownNorm):
        return replace(pair, squared_norm=norm)
    return replace(pair, squared_norm=norm, beyond=beyond, captured=captured)


def _squared_error(total: WeightedSum, pair: LoraPair, scaling: float) -> float:
    """Squared norm of total - scaling B A, in float64."""
    source = PairSource(total.summands[0].source.layout, pair.a, pair.b)
    minus = Summand(source, np.full(len(pair.a), -scaling))
    return squared_norm(WeightedSum(total.target, [*total.summands, minus]), torch.float64)


def _settled(
    operator: Operator, basis: torch.Tensor, whole: KnownNorm | ProbedMatrix, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Power iterations from `basis` (out x k): the last basis and its image M^T basis."""
    multiply = (operator.transposed_times, operator.times)
    kept = 0.0
    for passes in range(MAX_PASSES):
        image = multiply[passes % 2](basis)
        following, r = torch.linalg.qr(image)
        energy = torch.linalg.svdvals(r.to(torch.float64)).square()
        before, kept = kept, float(energy[:rank].sum())
        if passes > 0 and passes % 2 == 0:
            captured = float(energy.sum())
            discarded = captured - kept + float(whole.beyond(basis, captured).mean())
            if kept - before <= PASS_GAIN * discarded or passes == MAX_PASSES - 1:
                break
        basis = following
    return basis, image


def _lora_pair(
    u: torch.Tensor,
    s: torch.Tensor,
    vh: torch.Tensor,
    rank: int,
    scaling: float,
    *,
    fresh_rows: bool = False,
) -> LoraPair:
    """The leading `rank` singular triplets as a pair for a LoRA of `scaling`.

    The rows of A are orthogonal. Where a product is small, a row has the norm of a freshly
    initialised one, so that B, whose gradient is proportional to A, goes on at the usual pace;
    where it is larger, row of A and column of B have the same norm, because a step of the local
    optimizer changes both by the same amount. With `fresh_rows` all rows have the initial norm, for
    rules that train B alone (FedSVD, Lee et al. 2025). A is full even where the product has a lower
    rank; rows beyond `in` are zero. Raises UnusableMergeError when the merge overflows
    float32.
    """
    kept = min(rank, len(s))
    rows = vh[:rank]
    norms = torch.full((len(rows),), KAIMING_ROW_NORM, dtype=torch.float64)
    if not fresh_rows:
        norms[:kept] = torch.maximum(norms[:kept], (s[:kept] / scaling).sqrt())
    signs = _canonical_signs(rows)
    columns = u[:, :kept] * (s[:kept] * signs[:kept] / (scaling * norms[:kept]))
    a = _padded(rows * (signs * norms)[:, None], rank, 0)
    b = _padded(columns, rank, 1)
    energy = s.square()
    return LoraPair(float32(a), float32(b), float(energy[:kept].sum()), float(energy.sum()))


def float32(tensor: torch.Tensor) -> Float32Array:
    """Little-endian float32 in C order; raises UnusableMergeError when not finite."""
    with np.errstate(over="ignore"):
        array = tensor.numpy().astype("<f4", order="C")
    if not np.isfinite(array).all():
        raise UnusableMergeError(
            "merged adapter",
            expected="values that fit float32",
            found="an overflow",
            action="look at the norms of the admitted adapters; one of them is absurdly large",
        )
    return array


@lru_cache(maxsize=8)
def _gaussian(seed: int, rows: int, columns: int) -> torch.Tensor:
    drawn = np.random.default_rng(seed).standard_normal((rows, columns), dtype=np.float32)
    return torch.from_numpy(drawn)


def _basis(columns: torch.Tensor) -> torch.Tensor:
    basis: torch.Tensor = torch.linalg.qr(columns)[0]
    return basis


def _widened(right: torch.Tensor, rank: int) -> torch.Tensor:
    """Columns for a full basis: seeded noise follows where the stack has fewer than `rank`."""
    missing = min(rank, right.shape[0]) - right.shape[1]
    if missing <= 0:
        return right
    return torch.cat([right, _gaussian(0, right.shape[0], missing).to(right.dtype)], dim=1)


def _canonical_signs(rows: torch.Tensor) -> torch.Tensor:
    """+1 or -1 per row so that its entry of largest magnitude becomes positive."""
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).squeeze(1)
    return torch.where(largest < 0, -1.0, 1.0).to(torch.float64)


def _padded(matrix: torch.Tensor, size: int, dim: int) -> torch.Tensor:
    shape = list(matrix.shape)
    shape[dim] = size - shape[dim]
    return matrix if not shape[dim] else torch.cat([matrix, matrix.new_zeros(shape)], dim=dim)
