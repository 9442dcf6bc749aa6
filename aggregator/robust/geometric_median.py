"""Geometric median by smoothed Weiszfeld (RFA, Pillutla et al., IEEE TSP 2022, algorithm 2).

The point with the smallest sum of distances to the deltas. Fewer than half of the deltas cannot
move it arbitrarily far, whatever they are.
"""

import numpy as np

from aggregator.robust.kernel import Float64Array, distances_to, norms

SMOOTHING = 1e-6
"""Smallest distance that counts, as a share of the median norm: the nu of the paper."""

MOST_ITERATIONS = 1000
TOLERANCE = 1e-12
"""Stop when no weight changes by more."""


def geometric_median(kernel: Float64Array) -> Float64Array:
    """Weights, sum 1, of the deltas in their geometric median, (n,).

    Equal votes. Deltas that all agree get equal weights. Where 1000 iterations do not reach the
    tolerance (the median lies almost on a delta) the last weights are returned.
    """
    sizes = norms(kernel)
    floor = SMOOTHING * float(np.median(sizes) or sizes.max())
    weights = np.full(len(kernel), 1 / len(kernel))
    if floor == 0:
        return weights
    for _ in range(MOST_ITERATIONS):
        inverse = 1 / np.maximum(distances_to(kernel, weights), floor)
        before, weights = weights, inverse / inverse.sum()
        if np.abs(weights - before).max() < TOLERANCE:
            break
    return weights
