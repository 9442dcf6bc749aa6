"""Silos whose delta stands out, for the report and, in small rounds, for a person.

An alarm changes no weight. It is raised above median + 3 x 1.4826 x MAD (a normal sample's three
standard deviations, by the median absolute deviation of Hampel 1974) and only above 1.5 medians,
because the MAD of three or four numbers is often close to nothing.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from aggregator.robust.kernel import Float64Array

DEVIATIONS = 3 * 1.4826
LEAST_RATIO = 1.5

Measure = Literal["norm", "distance"]


@dataclass(frozen=True)
class Alarm:
    """Silo number `silo` has a norm, or a distance to the merged delta, above the limit."""

    silo: int
    measure: Measure
    value: float
    limit: float


def alarms_of(measure: Measure, values: Float64Array) -> tuple[Alarm, ...]:
    """An alarm for every value above the limit, in the order of the silos."""
    limit = alarm_limit(values)
    return tuple(
        Alarm(int(silo), measure, float(values[silo]), limit)
        for silo in np.flatnonzero(values > limit)
    )


def alarm_limit(values: Float64Array) -> float:
    """The larger of median + 3 x 1.4826 x MAD and 1.5 x median."""
    median = float(np.median(values))
    spread = float(np.median(np.abs(values - median)))
    return max(median + DEVIATIONS * spread, LEAST_RATIO * median)
