"""Blobs between storage and this machine, several at a time.

Every one of them is hashed on the way, so as many threads as cores keep a near storage busy.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from infra.processes.worker_threads import default_workers

T = TypeVar("T")
R = TypeVar("R")


def several_at_a_time(transfer: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Results in the order of `items`; raises what the first failing one in that order raised.

    After a failure no other transfer begins; those under way are waited for.
    """
    pool = ThreadPoolExecutor(max(2, default_workers()))
    try:
        return list(pool.map(transfer, items))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
