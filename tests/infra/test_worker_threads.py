"""Work shared out over threads, with results in the order of what was asked."""

import threading
import time
from collections.abc import Iterator

import pytest

from infra.processes.worker_threads import in_order


def test_results_come_in_the_order_of_the_items_whoever_is_done_first() -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.02 / (number + 1))
        return number * number

    assert list(in_order(slow_at_first, range(20), 3)) == [number**2 for number in range(20)]
    assert list(in_order(slow_at_first, [], 3)) == []


def test_no_more_is_begun_than_workers_and_two_waiting() -> None:
    asked = 0

    def items() -> Iterator[int]:
        nonlocal asked
        while asked < 100:
            asked += 1
            yield asked

    results = in_order(lambda number: number, items(), 2)
    for taken in range(1, 50):
        assert next(results) == taken
        assert asked <= taken + 2 + 2
    results.close()  # type: ignore[attr-defined]
    assert asked < 60


def test_the_first_failure_in_order_is_raised_and_ends_the_threads() -> None:
    def fails_at(number: int) -> int:
        if number in (5, 6):
            raise ValueError(f"item {number}")
        return number

    before = threading.active_count()
    with pytest.raises(ValueError, match="item 5"):
        list(in_order(fails_at, range(100), 2))
    assert threading.active_count() == before
