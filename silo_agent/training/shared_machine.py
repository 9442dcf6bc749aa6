"""Agents on one machine take turns to train, and keep memory while none of them lacks it.

Three lock files that the kernel releases on death, beside the one that the configuration names:
held is the lock itself by whoever trains, `.kept` by all whose ranks wait in memory, and `.wanted`
by the one that has its turn and lacks the memory for ranks of its own.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from data_contracts.errors import SiloOperatorError
from infra.clock import Clock
from infra.disk.file_lock import in_turn, is_held, shared, try_lock

WAIT_SECONDS = 0.5
ROOM_SECONDS = 60.0
"""An agent gives memory back between two steps; one that checks a large data set may take longer,
and then ranks are started as if there were no other."""

log = logging.getLogger("silo-agent")


class SharedMachine:
    """The machine as one agent sees it; with `lock` None it is alone on it."""

    def __init__(self, lock: Path | None, clock: Clock) -> None:
        self._lock, self._clock = lock, clock

    @contextmanager
    def turn(self, on_wait: Callable[[], None], is_stopped: Callable[[], bool]) -> Iterator[None]:
        """Train inside the block, when no other agent does."""
        if self._lock is None:
            yield
            return
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a") as file:
            while not try_lock(file):
                if is_stopped():
                    raise SiloOperatorError(
                        "turn to train",
                        expected="to wait for the other agents of this machine",
                        found="a stop by the silo operator",
                        action="start the agent again when it may take part",
                    )
                on_wait()
                self._clock.sleep(WAIT_SECONDS)
            yield

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Be one of those whose ranks wait in memory."""
        if self._lock is None:
            yield
            return
        with shared(_beside(self._lock, "kept")):
            yield

    @property
    def is_memory_wanted(self) -> bool:
        """Whether another agent lacks memory."""
        return self._lock is not None and is_held(_beside(self._lock, "wanted"))

    def make_room(self, needed: int | None) -> None:
        """Return when `needed` bytes are free, or no other agent keeps ranks; in one's own turn.

        None stands for memory that cannot be told here: that of a GPU, or for a model that does
        not say its shape.
        """
        if self._lock is None or _has_room(self._lock, needed):
            return
        log.info("other agents of this machine are asked for the memory of their idle processes")
        # Waits for those who only look whether it is held.
        with in_turn(_beside(self._lock, "wanted")):
            for _ in range(round(ROOM_SECONDS / WAIT_SECONDS)):
                self._clock.sleep(WAIT_SECONDS)
                if _has_room(self._lock, needed):
                    return
        log.warning("another agent of this machine has not given its memory back; starting anyway")


def _has_room(lock: Path, needed: int | None) -> bool:
    if not is_held(_beside(lock, "kept")):
        return True
    return needed is not None and psutil.virtual_memory().available >= needed


def _beside(lock: Path, name: str) -> Path:
    return lock.with_name(f"{lock.name}.{name}")
