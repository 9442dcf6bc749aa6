"""Centred clipping (Karimireddy et al., ICML 2021): step from a centre by clipped differences.

The centre is the merged delta of the round before, carried over, and zero in the first round. The
radius is the median distance to the centre, taken anew in each iteration, so that nothing has to be
tuned (the paper fixes a radius by hand; `radius` does that).
"""

from dataclasses import dataclass

import numpy as np

from aggregator.robust.clipping import radius_factors
from aggregator.robust.kernel import Float64Array, distances_to

ITERATIONS = 3


@dataclass(frozen=True)
class Centre:
    """The carried-over delta by its products with the silos' deltas (n,) and with itself."""

    products: Float64Array
    squared_norm: float

    def moved(self, shares: Float64Array) -> "Centre":
        """The same centre among the deltas sum_j shares_ij Delta_j."""
        return Centre(shares @ self.products, self.squared_norm)


@dataclass(frozen=True)
class CentredWeights:
    """The result is sum_i coefficients_i Delta_i + centre x the carried-over delta."""

    coefficients: Float64Array
    centre: float


def split_centre(kernel: Float64Array) -> tuple[Float64Array, Centre]:
    """A kernel whose last row is the carried-over delta, as the silos' kernel and that centre."""
    return kernel[:-1, :-1], Centre(kernel[:-1, -1], float(kernel[-1, -1]))


def centred_clipping(
    kernel: Float64Array,
    centre: Centre | None = None,
    radius: float | None = None,
    iterations: int = ITERATIONS,
) -> CentredWeights:
    """v <- v + 1/n sum_i (Delta_i - v) min(1, radius / |Delta_i - v|), starting at the centre.

    No coefficient is negative; with the centre's they sum to 1, and without a centre to less,
    because clipped steps from zero stop short.
    """
    silos = len(kernel)
    extended = _with_centre(kernel, centre)
    weights = np.zeros(silos + 1)
    weights[-1] = 1.0
    for _ in range(iterations):
        distances = distances_to(extended, weights)[:silos]
        limit = float(np.median(distances)) if radius is None else radius
        steps = radius_factors(distances, limit) / silos
        weights *= max(1 - steps.sum(), 0.0)
        weights[:silos] += steps
    return CentredWeights(weights[:silos], float(weights[-1]) if centre else 0.0)


def _with_centre(kernel: Float64Array, centre: Centre | None) -> Float64Array:
    extended = np.zeros((len(kernel) + 1, len(kernel) + 1))
    extended[:-1, :-1] = kernel
    if centre is not None:
        extended[-1, :-1] = extended[:-1, -1] = centre.products
        extended[-1, -1] = centre.squared_norm
    return extended
