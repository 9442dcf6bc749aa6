"""How sure a sample makes a leak: the area under a curve with its interval, and one more count."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""Standard errors on each side of a two-sided interval of 95 %."""


@dataclass(frozen=True)
class Auc:
    """How often a score of a member is above one of another (ties count half), with its 95 %
    interval, cut to 0 and 1."""

    value: float
    low: float
    high: float


def auc(members: Sequence[float], others: Sequence[float]) -> Auc:
    """The Mann-Whitney estimate with the interval of DeLong et al. 1988 (Biometrics 44:837), whose
    error is that of the structural components, in O((n + m) log(n + m)).

    Its error is never taken to be less than that of scores which say nothing,
    sqrt((n + m + 1) / (12 n m)) (Mann and Whitney 1947): DeLong's is 0 where a handful happens to
    be told apart. Raises ValueError for fewer than two on a side.
    """
    if min(len(members), len(others)) < 2:
        raise ValueError(f"expected two or more of each, found {len(members)} and {len(others)}")
    above = _shares_below(np.asarray(members), np.asarray(others))
    below = 1 - _shares_below(np.asarray(others), np.asarray(members))
    value = float(above.mean())
    n, m = len(above), len(below)
    delong = above.var(ddof=1) / n + below.var(ddof=1) / m
    error = math.sqrt(max(float(delong), (n + m + 1) / (12 * n * m)))
    return Auc(value, max(0.0, value - Z_95 * error), min(1.0, value + Z_95 * error))


def _shares_below(scores: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each score, how much of `of` is below it; what is equal counts half."""
    ordered = np.sort(of)
    below = np.searchsorted(ordered, scores, side="left")
    until = np.searchsorted(ordered, scores, side="right")
    shares: NDArray[np.float64] = (below + until) / (2 * len(ordered))
    return shares


def exposures(planted: Sequence[float], candidates: Sequence[float]) -> list[float]:
    """Of each planted canary the bits by which it comes before what chance would do: log2 of how
    many there are, all candidates and itself, less log2 of its rank among them by loss, in nats
    (Carlini et al. 2019, definition 5). Of equal losses half come before; of one alone it is 0."""
    if not candidates:
        return [0.0] * len(planted)
    below = _shares_below(np.asarray(planted), np.asarray(candidates)) * len(candidates)
    bits: list[float] = (math.log2(len(candidates) + 1) - np.log2(1 + below)).tolist()
    return bits


def chance_of_mean_exposure(mean: float, count: int) -> float:
    """How likely a mean of so many exposures is as high, of canaries that nobody remembers.

    Then a rank is any with the same probability, its share of all no smaller than a uniform number,
    and the sum of exposures no larger than one of exponential ones: the tail of a gamma
    distribution (Erlang's sum). Comparing all with the same candidates binds them together a
    little, which is left out. 1 of none.
    """
    rate = mean * count * math.log(2)
    if not rate:
        return 1.0
    terms = (k * math.log(rate) - rate - math.lgamma(k + 1) for k in range(count))
    return min(1.0, math.fsum(map(math.exp, terms)))


def chance_of_as_many(found: int, of: int, others_found: int, others: int) -> float:
    """How likely `found` or more of `of` are, were the same happening to all: the p-value of
    Fisher's exact test, one-sided (Fisher 1922), in whole numbers.

    1 where there is nothing on a side.
    """
    together, both = found + others_found, of + others
    highest = min(of, together)
    ways = sum(comb(of, k) * comb(others, together - k) for k in range(found, highest + 1))
    return ways / comb(both, together)
