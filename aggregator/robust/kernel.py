"""Deltas known only by their inner products K_ij = <Delta_i, Delta_j>, (n x n) in float64.

Every distance, norm and mean of deltas follows from K, and K does not change when a silo writes its
delta with other factors (B G^-1, G A). Guaranteed: nothing here depends on the order of the silos
beyond the last bits, and no square root sees the negative numbers that rounding makes.
"""

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

ROUNDING = 1e-12
"""Relative to squared norms: what two equal squared distances may differ by."""


def norms(kernel: Float64Array) -> Float64Array:
    """The norm of every delta, (n,)."""
    return np.sqrt(np.maximum(np.diagonal(kernel), 0.0))


def squared_distances(kernel: Float64Array) -> Float64Array:
    """Squared distances between all deltas, (n x n); the diagonal is exactly zero."""
    squares = np.diagonal(kernel)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * kernel, 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances


def distances_to(kernel: Float64Array, coefficients: Float64Array) -> Float64Array:
    """Distance of every delta to sum_j c_j Delta_j, (n,)."""
    products = kernel @ coefficients
    squares = np.diagonal(kernel) - 2 * products + coefficients @ products
    return np.sqrt(np.maximum(squares, 0.0))


def scaled(kernel: Float64Array, factors: Float64Array) -> Float64Array:
    """The kernel of the deltas factor_i Delta_i."""
    return np.asarray(kernel * np.outer(factors, factors))


def mixed(kernel: Float64Array, shares: Float64Array) -> Float64Array:
    """The kernel of the deltas sum_j shares_ij Delta_j."""
    product = shares @ kernel @ shares.T
    return (product + product.T) / 2


def shares_of_smallest(
    values: Float64Array, count: int, tolerance: Float64Array | float
) -> Float64Array:
    """1 for each of the `count` smallest values, 0 for the others, (n,).

    Values within `tolerance` of the last place share the places that are left, so that neither
    rounding nor the order of the silos decides between equals.
    """
    cutoff = np.partition(values, count - 1)[count - 1]
    below = values < cutoff - tolerance
    tied = np.abs(values - cutoff) <= tolerance
    return np.asarray(below + tied * ((count - below.sum()) / tied.sum()))
