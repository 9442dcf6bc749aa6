"""Norm clipping: no delta counts for more than the median one."""

import numpy as np

from aggregator.robust.kernel import Float64Array


def median_norm_factors(norms: Float64Array) -> Float64Array:
    """Factor in (0, 1] per silo that cuts its norm to the median norm, (n,); 1 is not clipped.

    While fewer than half of the silos are bad, the median lies between the norms of good ones. A
    zero delta keeps the factor 1; where the median is zero every other delta gets the factor 0.
    """
    limit = float(np.median(norms))
    return radius_factors(norms, limit)


def radius_factors(distances: Float64Array, radius: float) -> Float64Array:
    """min(1, radius / distance) per silo, and 1 at distance zero."""
    factors = np.ones_like(distances)
    beyond = distances > radius
    factors[beyond] = radius / distances[beyond]
    return factors
