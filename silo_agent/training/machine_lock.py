"""Agents on one machine take turns to train: a lock file that the kernel releases on death."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from infra.clock import Clock
from infra.disk.file_lock import try_lock

WAIT_SECONDS = 0.5


@contextmanager
def machine_lock(
    path: Path | None, clock: Clock, on_wait: Callable[[], None], is_stopped: Callable[[], bool]
) -> Iterator[None]:
    """Hold the lock at `path`; without a path there is no turn to wait for."""
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        while not try_lock(file):
            if is_stopped():
                raise SiloOperatorError(
                    "turn to train",
                    expected="to wait for the other agents of this machine",
                    found="a stop by the silo operator",
                    action="start the agent again when it may take part",
                )
            on_wait()
            clock.sleep(WAIT_SECONDS)
        yield
