"""How much memory ranks hold, seen from outside: it costs them nothing, and idle ones are seen too.

A rank knows its own only, and to tell the others would take a collective call at each step.
"""

from contextlib import suppress

import psutil

from infra.processes.process_tree import descendants

_MODULES = "silo_agent.training.ranks."
_FORKS = f"{_MODULES}forked"


def rank_memory(pid: int) -> tuple[int, ...]:
    """Resident memory of each rank that is process `pid` or runs below it, in bytes.

    What several of them share, such as libraries, counts in each.
    """
    return _resident(_ranks(pid))


class RankMemory:
    """The ranks of one job, looked for once, by when they must all be there."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._found: list[psutil.Process] = []

    def largest(self) -> int | None:
        """Resident memory of the rank that holds most, in bytes; None when none is left."""
        self._found = self._found or _ranks(self._pid)
        return max(_resident(self._found), default=None)


def _ranks(pid: int) -> list[psutil.Process]:
    found = descendants(pid)
    with suppress(psutil.NoSuchProcess):
        found.append(psutil.Process(pid))
    return [process for process in found if _is_rank(process)]


def _is_rank(process: psutil.Process) -> bool:
    """By the module that it runs; torchrun names the same one, behind its own.

    A rank that was forked has the command of the process that it was forked from.
    """
    with suppress(psutil.Error):
        module = _module(process)
        if module == _FORKS:
            parent = process.parent()
            return parent is not None and _module(parent) == _FORKS
        return module.startswith(_MODULES)
    return False


def _module(process: psutil.Process) -> str:
    command = process.cmdline()
    named = command[command.index("-m") + 1 :][:1] if "-m" in command else []
    return named[0] if named else ""


def _resident(ranks: list[psutil.Process]) -> tuple[int, ...]:
    sizes = []
    for rank in ranks:
        with suppress(psutil.Error):
            sizes.append(int(rank.memory_info().rss))
    return tuple(size for size in sizes if size)
