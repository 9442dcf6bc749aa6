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


def redirect_output() -> None:
    """Send stdout and stderr, of this process and its helpers, to the log of this rank."""
    directory = os.environ.get(LOG_DIRECTORY_VARIABLE)
    if directory is None:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    path = rank_log(Path(directory), int(os.environ["RANK"]))
    descriptor = open_private(path)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def open_private(path: Path) -> int:
    """A descriptor of a new, empty file of mode 0600 that the caller closes."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
