"""Several transfers at a time: results in order, the first failure raised, the rest not begun."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aggregator.evidence.transfers import several_at_a_time
from data_contracts.protocol.artifact import ArtifactRef, digest_of_bytes
from infra.disk.blob_files import receive_blob


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


def test_one_blob_that_two_threads_fetch_is_whole_for_both(tmp_path: Path) -> None:
    data, path = b"first half, second half", tmp_path / "blob"
    ref = ArtifactRef(digest=digest_of_bytes(data), size=len(data))
    half_written, other_done = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield data[:10]
        half_written.set()
        assert other_done.wait(timeout=10)
        yield data[10:]

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(receive_blob, slowly(), ref, path)
        assert half_written.wait(timeout=10)
        receive_blob([data], ref, path)
        assert path.read_bytes() == data
        other_done.set()
        slow.result()
    assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]
