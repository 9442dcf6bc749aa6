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
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.protocol.records.round_plan import TrainedFactors

RANK_TOLERANCE = 1e-3
"""Relative singular value below which a direction of a factor counts as absent."""
LARGEST_CHANGE = 0.1

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ErrorProduct:
    """E / s as left @ right: (out x 2r) @ (2r x in), float64."""

    left: Float64Array
    right: Float64Array

    @classmethod
    def of_round(
        cls, error: tuple[Float32Array, Float32Array], true_a: Float32Array, sent_b: Float32Array
    ) -> "ErrorProduct":
        """From (eA, eB), the true A (rank x in) and the B (out x rank) that was sent."""
        error_a, error_b = error
        left = np.concatenate([error_b, sent_b], axis=1, dtype=np.float64)
        return cls(left, np.concatenate([true_a, error_a], axis=0, dtype=np.float64))

    @property
    def squared_norm(self) -> float:
        """Squared Frobenius norm of left @ right."""
        return float(((self.left.T @ self.left) * (self.right @ self.right.T)).sum())


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
    new_a, new_b = a.astype(np.float64), b.astype(np.float64)
    error_a, error_b = np.zeros_like(new_a), np.zeros_like(new_b)
    rest = error
    if trained != "a":
        coefficients = error.right @ _right_inverse(new_a)
        error_b = error.left @ coefficients
        rest = ErrorProduct(error.left, error.right - coefficients @ new_a)
    if trained != "b":
        error_a, rest = _into_a(rest, new_a, new_b)
    return RebasedError(
        error_a.astype(np.float32),
        error_b.astype(np.float32),
        max(error.squared_norm, 0.0),
        max(rest.squared_norm, 0.0),
    )


def _into_a(
    error: ErrorProduct, new_a: Float64Array, new_b: Float64Array
) -> tuple[Float64Array, ErrorProduct]:
    """eA for `error`, each direction of B' cut to what A' can take, and what is then left."""
    singular, directions = _directions(new_b.T @ new_b)
    basis = new_b @ (directions / singular)
    seen = basis.T @ error.left
    asked = (seen @ error.right) / singular[:, None]
    allowed = LARGEST_CHANGE * np.sqrt(np.square(new_a).sum() / len(new_a))
    norms = np.linalg.norm(asked, axis=1)
    kept = np.where(norms > allowed, allowed / np.where(norms > 0, norms, 1), 1.0)
    error_a = directions @ (kept[:, None] * asked)
    return error_a, ErrorProduct(error.left - (basis * kept) @ seen, error.right)


def _right_inverse(a: Float64Array) -> Float64Array:
    """A^+ (in x rank) of A (rank x in), without its absent directions."""
    singular, directions = _directions(a @ a.T)
    return a.T @ (directions / np.square(singular)) @ directions.T


def _directions(gram: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Singular values (k,) and directions (rank x k) of a factor by its Gram matrix."""
    squares, vectors = np.linalg.eigh(gram)
    present = squares > max(squares[-1], 0.0) * RANK_TOLERANCE**2
    return np.sqrt(squares[present]), vectors[:, present]
