"""An error of one round's factors, carried over to new factors of another basis.

Some merge rules (`REBASING_RULES`) give out factors that are no combinations of what was sent, so
an error (eA, eB) of the old factors means nothing to the new ones. What stays is the error of the
product. With the true factors A, B, the sent ones A_q, B_q and the scaling s,

    E = s (B A - B_q A_q) = s (eB A + B_q eA),

so the pair [eB, B_q], [A; eA] of rank 2r says all of it and the product is never formed. A small
change (eA, eB) of the new factors A', B' changes their product by s (B' eA + eB A'): the nearest to
E that this can be is its projection onto the tangent space at (A', B') (Absil, Mahony, Sepulchre
2008, section 3.5), reached by

    eB = E A'^+ / s,    eA = B'^+ (E / s) (I - A'^+ A').

Where B' is weak a change of its product costs a large change of A', for which "small" is no longer
true. So a direction of B' below `RANK_TOLERANCE` of its largest singular value is left out (a zero
or rank-deficient B' included), and what any direction asks of A' is cut to `LARGEST_CHANGE` of the
root mean square norm of the rows of A'. What is cut, and what no change of the factors can
express, is lost, and measured.

What this asks of the long sides is in the Gram matrices of [A; eA; A'] and [eB, B_q, B'], and the
rest is (3r x 3r). Every term has a factor that is an error, so float32 products are off by a few
parts in 10^7 of it; only the Gram matrices of A' and of B', which are inverted, are float64.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.protocol.records.training_recipe import TrainedFactors

RANK_TOLERANCE = 1e-3
"""Relative singular value below which a direction of a factor counts as absent."""
LARGEST_CHANGE = 0.1

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ErrorProduct:
    """E / s as [eB, B_q] @ [A; eA]: eA and A (rank x in), eB and B_q (out x rank), float32."""

    error_a: Float32Array
    error_b: Float32Array
    true_a: Float32Array
    sent_b: Float32Array

    @property
    def left(self) -> Float64Array:
        """[eB, B_q], out x 2r."""
        return np.concatenate([self.error_b, self.sent_b], axis=1, dtype=np.float64)

    @property
    def right(self) -> Float64Array:
        """[A; eA], 2r x in."""
        return np.concatenate([self.true_a, self.error_a], axis=0, dtype=np.float64)


@dataclass(frozen=True)
class RebasedError:
    """The error in new factors, eA (rank x in) and eB (out x rank), and what did not fit into it.

    `squared_norm` and `lost` are squared Frobenius norms of E / s and of E / s - B' eA - eB A'.
    """

    a: Float32Array
    b: Float32Array
    squared_norm: float
    lost: float


def rebased_error(
    error: ErrorProduct, a: Float32Array, b: Float32Array, trained: TrainedFactors
) -> RebasedError:
    """`error` at the new factors A' (rank x in) and B' (out x rank).

    Where only B is trained it goes into eB, where only A is trained into eA. Work is linear in
    (in + out) and quadratic in the rank.
    """
    rows = np.concatenate([error.true_a, error.error_a, a])
    columns = np.concatenate([error.error_b, error.sent_b, b], axis=1)
    row_gram, column_gram = _gram(rows, rows.T, a), _gram(columns.T, columns, b.T)
    old, new = slice(2 * len(a)), slice(2 * len(a), None)
    right, left = row_gram[old, old], column_gram[old, old]
    squared_norm = float((left * right).sum())
    of_a, of_b, in_new_a = np.zeros_like(a), np.zeros_like(b), np.zeros_like(row_gram[old, new])
    if trained != "a":
        in_new_a = row_gram[old, new] @ _inverse(row_gram[new, new])
        right = right - in_new_a @ row_gram[new, old]
        of_b = columns[:, old] @ in_new_a.astype(np.float32)
    if trained != "b":
        limit = LARGEST_CHANGE * np.sqrt(np.trace(row_gram[new, new]) / len(a))
        asked, left = _asked_of_a(column_gram, left, right, limit)
        mixture = np.concatenate([asked, -asked @ in_new_a], axis=1)
        of_a = mixture.astype(np.float32) @ rows
    lost = float((left * right).sum())
    return RebasedError(of_a, of_b, max(squared_norm, 0.0), max(lost, 0.0))


def _gram(wide: Float32Array, tall: Float32Array, new: Float32Array) -> Float64Array:
    """wide @ tall, one the transpose of the other; in float64 where the last rows, `new`, meet."""
    gram: Float64Array = (wide @ tall).astype(np.float64)
    exact = new.astype(np.float64)
    gram[-len(new) :, -len(new) :] = exact @ exact.T
    return gram


def _asked_of_a(
    column_gram: Float64Array, left: Float64Array, right: Float64Array, limit: float
) -> tuple[Float64Array, Float64Array]:
    """eA in terms of the right side (rank x 2r), each direction of B' cut to what A' can take, and
    the Gram matrix of what is then left of the left side; `left`, `right`: those of the two now."""
    old, new = slice(len(left)), slice(len(left), None)
    singular, directions = _directions(column_gram[new, new])
    seen = (directions / singular).T @ column_gram[new, old]
    squares = ((seen @ right) * seen).sum(axis=1)
    norms = np.sqrt(np.maximum(squares, 0)) / singular
    kept = np.where(norms > limit, limit / np.where(norms > 0, norms, 1), 1.0)
    asked = directions @ ((kept / singular)[:, None] * seen)
    return asked, left - (seen.T * (kept * (2 - kept))) @ seen


def _inverse(gram: Float64Array) -> Float64Array:
    """The pseudo-inverse of a factor's Gram matrix, without its absent directions."""
    singular, directions = _directions(gram)
    return (directions / np.square(singular)) @ directions.T


def _directions(gram: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Singular values (k,) and directions (rank x k) of a factor by its Gram matrix."""
    squares, vectors = np.linalg.eigh(gram)
    present = squares > max(squares[-1], 0.0) * RANK_TOLERANCE**2
    return np.sqrt(squares[present]), vectors[:, present]
