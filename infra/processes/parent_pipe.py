"""A child ends when its parent does: it watches a named pipe of which the parent holds an end.

The pipe's path is in the child's environment, and so in that of whatever the child starts. The
kernel closes the parent's end however the parent dies, SIGKILL included, so no child outlives it
by more than a second or two.
"""

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from infra.processes.exit_codes import ORPHANED
from infra.processes.process_tree import kill_and_wait

PIPE_VARIABLE = "CONSORTIA_AGENT_PIPE"
POLL_MILLISECONDS = 500


@contextmanager
def parent_pipe(directory: Path) -> Iterator[Path]:
    """A new pipe in `directory`, held open inside the block.

    After it no process is left that was given the pipe, whoever its parent and session became.
    """
    pipe = directory / "agent-alive"
    os.mkfifo(pipe, 0o600)
    # Read and write, so that opening does not wait for a reader; never inherited.
    descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield pipe
    finally:
        os.close(descriptor)
        while left := _watching(pipe):
            kill_and_wait(left)


def end_with_parent() -> None:
    """Start the watching thread; it ends this process at once when no parent holds the pipe.

    A process that was given no pipe, as one that a person starts by hand, is not watched.
    """
    pipe = os.environ.get(PIPE_VARIABLE)
    if pipe is None:
        return
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    # Else a reader is never told that the parent had gone before it opened the pipe.
    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    thread = threading.Thread(target=_watch, args=(descriptor,), name="parent-watch", daemon=True)
    thread.start()


def _watch(descriptor: int) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while True:
        for _, event in poller.poll(POLL_MILLISECONDS):
            if event & (select.POLLHUP | select.POLLERR) or not os.read(descriptor, 1):
                os._exit(ORPHANED)


def _watching(pipe: Path) -> list[psutil.Process]:
    """Processes that were given the name of `pipe`, which is unique to one parent's block."""
    found = []
    for process in psutil.process_iter():
        # Ended meanwhile, or of another user: then it is none of ours.
        with suppress(psutil.Error):
            if process.environ().get(PIPE_VARIABLE) == str(pipe):
                found.append(process)
    return found
