"""How much a list of private trainings reveals about one unit, as epsilon at a delta.

The library `dp-accounting` composes privacy loss distributions (Koskela et al. 2020; Doroshenko et
al. 2022), estimated so that they err upwards, and what comes out is rounded up. Renyi differential
privacy (Mironov 2017) bounds the same from above in another way, so the first must not exceed the
second. The library takes seconds to import, so it is imported where it is used.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from data_contracts.errors import ConsortiaError
from data_contracts.protocol.records.privacy_terms import MOST_EPSILON

if TYPE_CHECKING:
    from dp_accounting import DpEvent

EPSILON_PLACES = 3
_LEAST = Decimal(1).scaleb(-EPSILON_PLACES)
FINEST_INTERVAL = 1e-4
"""Distance of two values of a privacy loss distribution; wider where epsilon is above 2, because
its time grows with their number. Measured: 0.947 takes 0.2 s, 354 takes 0.4 s instead of 74 s."""
INTERVALS_PER_EPSILON = 20_000
DISAGREEMENT = 0.02
"""By so much of itself, and a rounding, one accountant may exceed the other unsaid."""

log = logging.getLogger("consortia")


class NoGuaranteeError(ConsortiaError):
    """What was asked for reveals so much that no number of it would mean anything."""


@dataclass(frozen=True, order=True)
class PrivateSteps:
    """Steps in which each unit is drawn with `sampling_rate` and the sum gets Gaussian noise of
    `noise_multiplier` clipping norms."""

    sampling_rate: Decimal
    noise_multiplier: Decimal
    steps: int


def epsilon_of(trainings: Iterable[PrivateSteps], delta: Decimal) -> Decimal:
    """Epsilon at `delta` of all `trainings` one after the other, rounded up to 3 places.

    For neighbours that differ by one unit more or less. Raises NoGuaranteeError above 1000, or
    where there is no number at all.
    """
    return _rounded(_epsilon(_grouped(trainings), float(delta)), ROUND_CEILING)


def least_epsilon_of(trainings: Iterable[PrivateSteps], delta: Decimal) -> Decimal:
    """As `epsilon_of`, rounded down: nobody who computes it anew finds less than this."""
    return _rounded(_epsilon(_grouped(trainings), float(delta)), ROUND_FLOOR)


def _grouped(trainings: Iterable[PrivateSteps]) -> tuple[PrivateSteps, ...]:
    """Equal steps counted together, in an order of their own: composition knows none."""
    steps: Counter[tuple[Decimal, Decimal]] = Counter()
    for each in trainings:
        steps[each.sampling_rate, each.noise_multiplier] += each.steps
    return tuple(sorted(PrivateSteps(*key, count) for key, count in steps.items()))


@lru_cache(maxsize=256)
def _epsilon(trainings: tuple[PrivateSteps, ...], delta: float) -> float:
    if not trainings:
        return 0.0
    with _quiet():
        from dp_accounting import pld, rdp

        events = [_event(each) for each in trainings]
        bound = _composed(rdp.RdpAccountant(), events, delta)
        if not bound <= MOST_EPSILON:
            raise _no_guarantee(trainings, bound)
        interval = max(FINEST_INTERVAL, bound / INTERVALS_PER_EPSILON)
        accountant = pld.PLDAccountant(value_discretization_interval=interval)
        found = _composed(accountant, events, delta)
    if not math.isfinite(found):
        raise _no_guarantee(trainings, found)
    if found > bound * (1 + DISAGREEMENT) + float(_LEAST):
        log.warning(
            "epsilon is %.4f by privacy loss distributions and %.4f by Renyi divergences, which "
            "bound it from above: the larger counts",
            found,
            bound,
        )
    return found


def _event(training: PrivateSteps) -> "DpEvent":
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent

    noisy = GaussianDpEvent(float(training.noise_multiplier))
    return SelfComposedDpEvent(
        PoissonSampledDpEvent(float(training.sampling_rate), noisy), training.steps
    )


def _composed(accountant: Any, events: "list[DpEvent]", delta: float) -> float:
    for event in events:
        accountant.compose(event)
    return float(accountant.get_epsilon(delta))


def _rounded(value: float, rounding: str) -> Decimal:
    """Never below the least that can be said: no training reveals nothing."""
    rounded = Decimal(repr(value)).quantize(_LEAST, rounding=rounding)
    return max(rounded, _LEAST) if rounding == ROUND_CEILING else rounded


def _no_guarantee(trainings: tuple[PrivateSteps, ...], found: float) -> NoGuaranteeError:
    least = min(each.noise_multiplier for each in trainings)
    return NoGuaranteeError(
        "differential privacy",
        expected=f"an epsilon of at most {MOST_EPSILON}",
        found=f"{found:.4g} for a noise multiplier of {least}",
        action="raise privacy.noise_multiplier, or ask for fewer steps",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """The library warns of Renyi orders that it leaves out, which only makes the bound looser."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
