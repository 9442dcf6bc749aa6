"""Fixed point: within its bounds whatever the numbers, right on average, and never an overflow."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import FederationOperatorError
from data_contracts.masking.fixed_point import FixedPoint
from data_contracts.masking.pads import UInt32Array, keystream

ONE = Fraction(1)


def bits_of(count: int, seed: int = 0) -> UInt32Array:
    return keystream(bytes([seed]) * 32, 0, count)


@given(
    silos=st.integers(2, 50),
    largest=st.decimals("0.000001", "1000", places=6),
    weights=st.lists(st.integers(1, 10**6), min_size=1, max_size=50),
    seed=st.integers(0, 255),
)
@settings(max_examples=80, deadline=None)
def test_the_mean_is_within_its_bound_of_what_was_in_range(
    silos: int, largest: Decimal, weights: list[int], seed: int
) -> None:
    point, weights = FixedPoint(silos, largest), weights[:silos]
    rng = np.random.default_rng(seed)
    factors = [Fraction(weight, max(weights)) for weight in weights]
    total, true = np.zeros(40, dtype="<u4"), np.zeros(40)
    for silo, factor in enumerate(factors):
        values = rng.uniform(-1.5, 1.5, 40) * float(largest)
        values[0], values[1] = float(largest), -float(largest)
        true += float(factor) * np.clip(values, -float(largest), float(largest))
        outside = int((np.abs(values) > float(largest)).sum())
        entries, clipped = point.encode(values, factor, bits_of(40, seed ^ silo))
        assert clipped == outside
        assert np.abs(entries.view("<i4").astype(np.int64)).max() <= point.magnitude
        total += entries
    whole = sum(factors, Fraction(0))
    error = np.abs(point.decode(total, whole) - true / float(whole))
    bound = float(point.quantum) * len(weights) / float(whole)
    assert error.max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize("silos", [2, 3, 7, 16, 49, 50])
def test_the_largest_of_all_silos_sum_up_without_overflow(silos: int) -> None:
    point = FixedPoint(silos, Decimal("0.1"))
    assert silos * point.magnitude <= 2**31 - 1 < (silos + 1) * point.magnitude + silos
    for sign in (1.0, -1.0):
        total = np.zeros(1, dtype="<u4")
        for silo in range(silos):
            entries, _ = point.encode(np.array([sign * 5.0]), ONE, bits_of(1, silo))
            total += entries
        assert abs(float(point.decode(total, Fraction(silos))[0]) - sign * 0.1) < 1e-9


def test_the_end_of_the_range_is_not_rounded_beyond_it() -> None:
    """Where float64 makes a little more of `largest` than the magnitude, and chance rounds up."""
    tried = 0
    for silos in (2, 3, 16, 50):
        for thousandths in range(1, 400):
            point = FixedPoint(silos, Decimal(thousandths) / 1000)
            largest = float(point.largest)
            if largest * float(1 / point.quantum) > point.magnitude:
                ends = np.array([largest, -largest])
                entries, _ = point.encode(ends, ONE, np.zeros(2, dtype="<u4"))
                steps = entries.view("<i4").tolist()
                assert steps == [point.magnitude, -point.magnitude]
                tried += 1
    assert tried > 10


def test_rounding_is_right_on_average() -> None:
    """Of 200,000 roundings of one number the mean is within five deviations of it, each quantum."""
    point, count = FixedPoint(2, Decimal(2)), 200_000
    quantum = float(point.quantum)
    for offset in (0.0, 0.25, 0.5, 0.9, -0.1, -0.75):
        values = np.full(count, (1000 + offset) * quantum)
        entries, _ = point.encode(values, ONE, bits_of(count, 9))
        steps = entries.view("<i4").astype(np.float64)
        assert set(np.unique(steps)) <= {np.floor(1000 + offset), np.floor(1000 + offset) + 1}
        deviation = np.sqrt(max(offset % 1 * (1 - offset % 1), 1e-12) / count)
        assert abs(steps.mean() - (1000 + offset)) < 5 * deviation + 1e-6


def test_the_error_of_many_silos_is_typically_that_of_the_square_root() -> None:
    silos = 16
    point, total = FixedPoint(silos, Decimal(1)), np.zeros(20_000, dtype="<u4")
    true = np.zeros(20_000)
    for silo in range(silos):
        values = np.random.default_rng(silo).uniform(-0.9, 0.9, 20_000)
        true += values
        entries, _ = point.encode(values.copy(), ONE, bits_of(20_000, silo))
        total += entries
    error = point.decode(total, Fraction(silos)) - true / silos
    typical = float(point.quantum) * np.sqrt(silos) / silos / 2
    assert np.sqrt((error**2).mean()) < typical
    assert abs(error.mean()) < 5 * typical / np.sqrt(20_000)


def test_zero_stays_zero() -> None:
    entries, clipped = FixedPoint(5, Decimal(1)).encode(np.zeros(100), ONE, bits_of(100))
    assert not entries.any()
    assert clipped == 0


@pytest.mark.parametrize("silos", [-1, 0, 1, 51, 2**31])
def test_a_number_of_silos_that_could_overflow_is_refused(silos: int) -> None:
    with pytest.raises(FederationOperatorError, match=f"2 to 50 silos to sum; found {silos}"):
        FixedPoint(silos, Decimal(1))


@pytest.mark.parametrize("largest", ["0", "-1", "NaN", "Infinity"])
def test_a_range_of_nothing_is_refused(largest: str) -> None:
    with pytest.raises(FederationOperatorError, match="a largest change above 0"):
        FixedPoint(3, Decimal(largest))


@pytest.mark.parametrize("factor", [Fraction(0), Fraction(-1, 2), Fraction(11, 10)])
def test_a_factor_outside_of_its_range_is_refused(factor: Fraction) -> None:
    with pytest.raises(FederationOperatorError, match="a factor above 0 and of at most 1"):
        FixedPoint(3, Decimal(1)).encode(np.zeros(3), factor, bits_of(3))
