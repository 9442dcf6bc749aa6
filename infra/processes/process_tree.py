"""Processes below one of ours: found, killed, and waited for until none executes."""

import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

KILLED_WITHIN_SECONDS = 5.0


def descendants(pid: int) -> list[psutil.Process]:
    """The processes below one that has not been collected yet."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill_and_wait(processes: Iterable[psutil.Process]) -> None:
    """Kill those that still run, and return when none executes or KILLED_WITHIN_SECONDS passed.

    One that was killed still runs for a moment, with no environment left to know it by, and one
    that its new parent has not collected yet executes no more.
    """
    running = [process for process in processes if process.is_running()]
    for process in running:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + KILLED_WITHIN_SECONDS
    while time.monotonic() < deadline and any(map(_executes, running)):
        time.sleep(0.02)


def _executes(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
