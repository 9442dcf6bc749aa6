"""Trimmed mean and median, entry by entry."""

import numpy as np
import pytest

from aggregator.robust.by_coordinates import entries_kept, median, most_trimmed, trimmed_mean
from data_contracts.errors import FederationOperatorError


def _stack(silos: int) -> np.ndarray:
    return np.random.default_rng(silos).normal(size=(silos, 6, 5)).astype(np.float32)


@pytest.mark.parametrize("silos", [3, 4, 5, 8])
def test_median_is_that_of_numpy(silos: int) -> None:
    stack = _stack(silos)
    assert median(stack) == pytest.approx(np.median(stack.astype(np.float64), axis=0))


def test_trimmed_mean_leaves_out_both_ends_of_each_entry() -> None:
    stack = np.array([[1.0, 5.0], [2.0, 1.0], [3.0, 2.0], [100.0, 3.0], [4.0, -90.0]])
    assert trimmed_mean(stack, 1).tolist() == [3.0, 2.0]


def test_trimming_nothing_is_the_mean() -> None:
    stack = _stack(5)
    assert trimmed_mean(stack, 0) == pytest.approx(stack.mean(axis=0, dtype=np.float64))


def test_the_order_of_silos_does_not_change_a_bit() -> None:
    stack = _stack(7)
    turned = stack[np.random.default_rng(0).permutation(7)]
    assert trimmed_mean(turned, 2).tobytes() == trimmed_mean(stack, 2).tobytes()
    assert median(turned).tobytes() == median(stack).tobytes()


def test_slices_are_parts_of_the_whole() -> None:
    stack = _stack(6)
    parts = [trimmed_mean(stack[:, rows], 1) for rows in (slice(0, 2), slice(2, 6))]
    assert np.concatenate(parts).tobytes() == trimmed_mean(stack, 1).tobytes()


def test_two_liars_of_seven_stay_within_the_honest_range() -> None:
    honest = _stack(5)
    lies = np.full((2, 6, 5), 1e30, dtype=np.float32)
    result = trimmed_mean(np.concatenate([honest, lies]), 2)
    assert (result <= honest.max(axis=0)).all()
    assert (result >= honest.min(axis=0)).all()


def test_entries_kept_tell_who_was_trimmed() -> None:
    honest = _stack(6)
    lies = np.full((1, 6, 5), 1e30, dtype=np.float32)
    kept = entries_kept(np.concatenate([honest, lies]), 1)
    assert kept[-1] == 0
    assert kept.sum() == 5 * 30


def test_too_few_silos_are_said() -> None:
    with pytest.raises(FederationOperatorError, match=r"more than 4 silos to tolerate 2; found 4"):
        trimmed_mean(_stack(4), 2)
    assert trimmed_mean(_stack(5), most_trimmed(5)).shape == (6, 5)
