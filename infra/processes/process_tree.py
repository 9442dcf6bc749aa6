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
    while time.monotonic() < deadline and any(map(executes, running)):
        time.sleep(0.02)


def executes(process: psutil.Process) -> bool:
    """Whether it runs; one that only waits to be collected does not."""
    try:
        # The first thread of several can be a zombie while others still hold files and ports.
        is_over = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
        return process.is_running() and not is_over
    except psutil.NoSuchProcess:
        return False
