"""The defences that the simulator compares, all of them through the kernel of inner products.

Those named after a plan are `robust_weights` with that plan. `krum`, `cc radius 100` and `mean` are
the yardsticks of Karimireddy et al. (ICLR 2022), whose published logs the digits cell repeats.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aggregator.robust.centred_clipping import Centre, centred_clipping
from aggregator.robust.krum import multi_krum
from aggregator.robust.robust_weights import robust_weights
from data_contracts.protocol.records.merge_spec import RobustSpec

Array = npt.NDArray[np.float64]
Weights = tuple[Array, float]
"""Coefficients of the silos' deltas and that of the previous merged delta."""

Rule = Callable[[Array, Centre, int], Weights]
"""From the kernel, the previous merged delta and the number f of silos to tolerate."""

YARDSTICK_RADIUS = 100.0
"""tau = 10 / (1 - momentum 0.9), the published runs' radius."""


@dataclass(frozen=True)
class Planned:
    """`robust_weights` under one plan, with equal token shares."""

    spec: RobustSpec

    def __call__(self, kernel: Array, centre: Centre, tolerated: int) -> Weights:
        prior = np.full(len(kernel), 1 / len(kernel))
        spec = self.spec.model_copy(update={"tolerated_silos": tolerated})
        weights = robust_weights(kernel, prior, spec, centre)
        return weights.coefficients, weights.centre_coefficient


def mean(kernel: Array, centre: Centre, tolerated: int) -> Weights:  # noqa: ARG001
    """No defence."""
    return np.full(len(kernel), 1 / len(kernel)), 0.0


def krum(kernel: Array, centre: Centre, tolerated: int) -> Weights:  # noqa: ARG001
    """One delta, the one with the closest neighbours."""
    return multi_krum(kernel, tolerated, kept=1), 0.0


def fixed_radius(kernel: Array, centre: Centre, tolerated: int) -> Weights:  # noqa: ARG001
    """Centred clipping with the yardstick's radius."""
    weights = centred_clipping(kernel, centre, radius=YARDSTICK_RADIUS)
    return weights.coefficients, weights.centre


def _plan(**fields: str) -> Planned:
    return Planned(RobustSpec.model_validate({"tolerated_silos": 1, **fields}))


RULES: Mapping[str, Rule] = {
    "mean": mean,
    "krum": krum,
    "gm": _plan(clip="none", mixing="none", rule="geometric_median"),
    "cc": _plan(clip="none", mixing="none", rule="centred_clipping"),
    "cc radius 100": fixed_radius,
    "default": _plan(rule="geometric_median"),
    "default cc": _plan(rule="centred_clipping"),
}
"""`gm`, `cc`: bare rules. `default`: clip, mix, geometric median; `default cc`: centred clipping in
the end."""
