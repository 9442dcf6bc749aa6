"""Weighted sum of LoRA products, exact before truncation and of the best possible rank after it.

With B = [w_i s_i B_i] and A = [A_i] stacked, B A is the weighted sum itself. QR of both factors
leaves a small core whose SVD is that of the sum (as in `torch.svd_lowrank` or LoRA-SB, but exact),
so the out x in matrix is never formed. By Eckart-Young the truncation is the best of its rank.

Deterministic: float64, one BLAS thread, canonical signs; the same terms in the same order give the
same bits on the same wheels and kind of CPU.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from data_contracts.errors import FederationOperatorError

KAIMING_ROW_NORM = 3.0**-0.5
"""Expected row norm of PEFT's initial A: uniform in +-1/sqrt(in), so E|row|^2 = 1/3."""

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Term:
    """One summand weight * scaling * B @ A, with A (r x in) and B (out x r); ranks may differ."""

    weight: float
    scaling: float
    a: Float32Array
    b: Float32Array


@dataclass(frozen=True)
class MergedModule:
    """A (rank x in) with orthogonal rows and B (out x rank), so that scaling * B @ A is the merge.

    `discarded_energy` is the share, 0 to 1, of `squared_norm` (the sum's squared Frobenius norm)
    that truncation dropped.
    """

    a: Float32Array
    b: Float32Array
    discarded_energy: float
    squared_norm: float


def stack_truncate(terms: Sequence[Term], rank: int, scaling: float) -> MergedModule:
    """Merge `terms` into one pair of `rank` for a LoRA of `scaling`.

    The singular values go into B and every row of A gets the norm of a freshly initialised one, so
    that the next round trains B at the usual pace; splitting them by their square roots would
    shrink A and slow B down (FedSVD, Lee et al. 2025, re-initialises A the same way). A has full
    orthogonal rows even where the sum has a lower rank; rows beyond `in` are zero.
    Raises ValueError without terms and FederationOperatorError when the merge overflows float32.
    """
    if not terms:
        raise ValueError("expected at least one term")
    with _one_thread():
        left = torch.cat([_f64(t.b) * (t.weight * t.scaling) for t in terms], dim=1)
        right = torch.cat([_f64(t.a) for t in terms], dim=0).T
        q_left, r_left = torch.linalg.qr(left)
        q_right, r_right = torch.linalg.qr(_widened(right, rank))
        u, s, vh = torch.linalg.svd(r_left @ r_right[:, : right.shape[1]].T, full_matrices=True)
        rows = (vh @ q_right.T)[:rank]
        kept = min(rank, len(s))
        columns = (q_left @ u[:, :kept]) * s[:kept]
        signs = _canonical_signs(rows)
        a = _padded(rows * signs[:, None] * KAIMING_ROW_NORM, rank, 0)
        b = _padded(columns * signs[:kept] / (scaling * KAIMING_ROW_NORM), rank, 1)
    energy = s.square()
    total = float(energy.sum())
    discarded = float(energy[kept:].sum()) / total if total > 0 else 0.0
    return MergedModule(_f32(a), _f32(b), discarded, total)


def _widened(right: torch.Tensor, rank: int) -> torch.Tensor:
    """Columns for a full basis: seeded noise follows where the stack has fewer than `rank`."""
    missing = min(rank, right.shape[0]) - right.shape[1]
    if missing <= 0:
        return right
    noise = np.random.default_rng(0).standard_normal((right.shape[0], missing))
    return torch.cat([right, torch.from_numpy(noise)], dim=1)


def _canonical_signs(rows: torch.Tensor) -> torch.Tensor:
    """+1 or -1 per row so that its entry of largest magnitude becomes positive."""
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True)).squeeze(1)
    return torch.where(largest < 0, -1.0, 1.0).to(torch.float64)


def _padded(matrix: torch.Tensor, size: int, dim: int) -> torch.Tensor:
    shape = list(matrix.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([matrix, matrix.new_zeros(shape)], dim=dim)


def _f64(array: Float32Array) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float64))


def _f32(tensor: torch.Tensor) -> Float32Array:
    with np.errstate(over="ignore"):
        array = tensor.numpy().astype("<f4", order="C")
    if not np.isfinite(array).all():
        raise FederationOperatorError(
            "merged adapter",
            expected="values that fit float32",
            found="an overflow",
            action="look at the norms of the admitted adapters; one of them is absurdly large",
        )
    return array


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums depend on how they are split over threads, so one thread makes them repeatable."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
