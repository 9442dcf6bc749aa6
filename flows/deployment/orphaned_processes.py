"""Processes of flow runs whose runner was killed: they run on beside the next one.

A runner names its home directory in its environment, which everything that it starts inherits, and
their children too. Whoever holds the runner's lock is the only runner, so another process with that
name is an orphan, and no other process can have it. Pids are not relied on.
"""

import os
from contextlib import suppress
from pathlib import Path

import psutil

RUNNER_HOME = "CONSORTIA_RUNNER_HOME"
KILL_WAIT_SECONDS = 10.0


def name_children(home: Path) -> None:
    """From here on what this process starts can be told by its home directory."""
    os.environ[RUNNER_HOME] = str(home.resolve())


def flow_processes(home: Path) -> list[psutil.Process]:
    """Everything that runners of `home` have started, this process's own children included."""
    return [p for p in psutil.process_iter() if _is_of(p, str(home.resolve()))]


def end_orphans(home: Path) -> int:
    """SIGKILL what an earlier runner of `home` left, and wait until it has ended; how many.

    Only for whoever holds the runner's lock. Killed anywhere, a flow run leaves nothing half done.
    """
    orphans = flow_processes(home)
    for orphan in orphans:
        with suppress(psutil.NoSuchProcess):
            orphan.kill()
    psutil.wait_procs(orphans, timeout=KILL_WAIT_SECONDS)
    return len(orphans)


def _is_of(process: psutil.Process, home: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(RUNNER_HOME) == home
    except (psutil.Error, OSError):
        return False
