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

from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.errors import UnusableMergeError

KAIMING_ROW_NORM = 3.0**-0.5
"""Expected row norm of PEFT's initial A: uniform in +-1/sqrt(in), so E|row|^2 = 1/3."""
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
    which it approximates.
    """

    a: Float32Array
    b: Float32Array
    kept_norm: float
    squared_norm: float

    @property
    def discarded_norm(self) -> float:
        """Squared Frobenius norm of what truncation dropped."""
        return max(self.squared_norm - self.kept_norm, 0.0)


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
    operator: Operator, squared_norm: float, rank: int, scaling: float, seed: int
) -> LoraPair:
    """A pair of `rank` for the matrix of `operator`, whose squared Frobenius norm is given.

    Passes over the matrix go on until one gains less than `PASS_GAIN` of the energy that is still
    discarded; where the spectrum decays, as that of trained adapters does, the first two suffice.
    `seed` must not be known to whoever supplies the matrix before it is supplied: what is
    orthogonal to the sketch could be overlooked.
    """
    out_features, in_features = operator.shape
    width = min(rank + OVERSAMPLING, out_features, in_features)
    basis = _basis(operator.times(_gaussian(seed, in_features, width)))
    multiply = (operator.transposed_times, operator.times)
    kept = 0.0
    for passes in range(MAX_PASSES):
        image = multiply[passes % 2](basis)
        following, r = torch.linalg.qr(image)
        before, kept = kept, _leading_energy(r, rank)
        settled = kept - before <= PASS_GAIN * max(squared_norm - kept, 0.0)
        if passes > 0 and passes % 2 == 0 and (settled or passes == MAX_PASSES - 1):
            break
        basis = following
    q, r = torch.linalg.qr(image.to(torch.float64))
    u, s, vh = torch.linalg.svd(r.T)
    pair = _lora_pair(basis.to(torch.float64) @ u, s, vh @ q.T, rank, scaling)
    return replace(pair, squared_norm=max(squared_norm, pair.kept_norm))


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


def _leading_energy(r: torch.Tensor, rank: int) -> float:
    return float(torch.linalg.svdvals(r.to(torch.float64))[:rank].square().sum())


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
