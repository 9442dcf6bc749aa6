"""A rank ends when the agent does: it watches a named pipe of which the agent holds the other end.

The kernel closes the agent's end however the agent dies, SIGKILL included, so no rank outlives
it by more than a second or two.
"""

import os
import select
import sys
import threading
from pathlib import Path

AGENT_PIPE_VARIABLE = "CONSORTIA_AGENT_PIPE"
POLL_MILLISECONDS = 500
ORPHANED_EXIT_CODE = 86


def end_with_agent(pipe: Path) -> None:
    """Start the watching thread; it ends this process at once when no agent holds `pipe`."""
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    # Else a reader is never told that the agent had gone before it opened the pipe.
    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    thread = threading.Thread(target=_watch, args=(descriptor,), name="agent-watch", daemon=True)
    thread.start()


def end_process(code: int) -> None:
    """Leave at once: with every file written, tearing torch's modules down only costs seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _watch(descriptor: int) -> None:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while True:
        for _, event in poller.poll(POLL_MILLISECONDS):
            if event & (select.POLLHUP | select.POLLERR) or not os.read(descriptor, 1):
                os._exit(ORPHANED_EXIT_CODE)
