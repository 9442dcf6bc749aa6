"""Multi-Krum (Blanchard et al., NeurIPS 2017): the mean of the deltas with the closest neighbours.

Needs n >= 2f + 3. It keeps n - f - 2 deltas, the most for which its resilience is proven
(Damaskinos et al., AggregaThor, MLSys 2019). Where honest silos differ much, an attacker that
stands in their middle (ALIE) is chosen first; mix before it.
"""

import numpy as np

from aggregator.robust.kernel import ROUNDING, Float64Array, shares_of_smallest, squared_distances


def krum_scores(kernel: Float64Array, tolerated: int) -> Float64Array:
    """Sum of squared distances to the n - f - 2 nearest other deltas, (n,); smaller is better."""
    others = len(kernel) - tolerated - 2
    nearest_first = np.sort(squared_distances(kernel), axis=1)
    return np.asarray(nearest_first[:, 1 : others + 1].sum(axis=1))


def multi_krum(kernel: Float64Array, tolerated: int, kept: int | None = None) -> Float64Array:
    """Weights, sum 1, of the `kept` deltas with the smallest scores, (n,); Krum is `kept` = 1.

    Deltas that tie for the last place share it.
    """
    places = len(kernel) - tolerated - 2 if kept is None else kept
    scores = krum_scores(kernel, tolerated)
    tolerance = ROUNDING * len(kernel) * float(np.median(np.diagonal(kernel)))
    return shares_of_smallest(scores, places, tolerance) / places
