"""Where a training rank writes: its own private log, from its first moment.

torchrun starts the ranks and gives them its own output; the error of one rank must be found
without reading that of all. Imports nothing heavy, so that a fault in a heavy import is logged.
"""

import os
import sys
from pathlib import Path

LOG_DIRECTORY_VARIABLE = "CONSORTIA_LOG_DIRECTORY"
"""Directory of the logs; without it a rank keeps the output that it was given."""


def rank_log(directory: Path, rank: int) -> Path:
    """Everything that a rank wrote to stdout and stderr."""
    return directory / f"log-rank-{rank}.txt"


def redirect_output(directory: Path | None = None) -> None:
    """Send stdout and stderr, of this process and its helpers, to the log of this rank.

    In `directory`, that of a job, or where the launch said; a log that is there goes on.
    """
    launched_in = os.environ.get(LOG_DIRECTORY_VARIABLE)
    if launched_in is None:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    path = rank_log(directory or Path(launched_in), int(os.environ["RANK"]))
    descriptor = open_private(path)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def open_private(path: Path) -> int:
    """A descriptor that appends to a file of mode 0600; the caller closes it."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
