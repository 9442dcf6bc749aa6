"""Nearest-neighbour mixing (NNM, Allouah et al., AISTATS 2023, algorithm 2).

Averaging each delta with its neighbours takes out what merely differs between honest silos, which
is what ALIE and mimic hide in; after it any rule below loses only a term of order f / n of the
spread, the best possible (their theorem 1 and proposition 1).
"""

import numpy as np

from aggregator.robust.kernel import ROUNDING, Float64Array, shares_of_smallest, squared_distances


def nearest_neighbour_shares(kernel: Float64Array, tolerated: int) -> Float64Array:
    """Row i: the weights (sum 1) that make mixed delta i of the n - f deltas nearest to i, (n x n).

    A delta is its own nearest. Deltas at the same distance as the last neighbour share its place.
    """
    kept = len(kernel) - tolerated
    distances = squared_distances(kernel)
    squares = np.diagonal(kernel)
    rows = [
        shares_of_smallest(distances[i], kept, ROUNDING * (squares[i] + squares)) / kept
        for i in range(len(kernel))
    ]
    return np.stack(rows)
