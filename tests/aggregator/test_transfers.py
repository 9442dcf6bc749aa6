"""Several transfers at a time: results in order, the first failure raised, the rest not begun."""

import threading

import pytest

from aggregator.transfers import several_at_a_time


def test_results_come_in_the_order_of_the_items() -> None:
    first_may_end = threading.Event()

    def transfer(item: int) -> int:
        if item == 0:
            assert first_may_end.wait(timeout=10), "the second never ran beside the first"
        else:
            first_may_end.set()
        return item * 10

    assert several_at_a_time(transfer, range(5)) == [0, 10, 20, 30, 40]


def test_the_first_failure_ends_what_has_not_begun() -> None:
    begun: list[int] = []

    def transfer(item: int) -> None:
        begun.append(item)
        raise OSError(f"transfer {item}")

    with pytest.raises(OSError, match="transfer 0"):
        several_at_a_time(transfer, range(10_000))
    assert len(begun) < 10_000


def test_nothing_to_transfer_is_nothing() -> None:
    assert several_at_a_time(str, []) == []
