"""Locks on files that the kernel gives back however their holder ends (flock(2))."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from data_contracts.errors import ConsortiaError


def try_lock(file: IO[Any]) -> bool:
    """Whether this process holds the lock of `file` now; it does until the file is closed."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Hold the lock of the file `path` beside others who share it; `try_lock` fails meanwhile."""
    with path.open("a") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH)
        yield


@contextmanager
def held_alone(path: Path, refusal: ConsortiaError) -> Iterator[None]:
    """Hold the lock of the file `path`; raises `refusal` when another process does."""
    with path.open("a") as file:
        if not try_lock(file):
            raise refusal
        yield


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Hold the lock of the file `path`, once whoever holds it now has let go."""
    with path.open("a") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of the file `path`; nobody does that of none."""
    if not path.exists():
        return False
    with path.open("a") as file:
        return not try_lock(file)
