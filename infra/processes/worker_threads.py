"""How many threads share out work that keeps a core busy: merging, hashing."""

import os

MOST_WORKERS = 16


def default_workers() -> int:
    """One worker per core that this process may use, at most `MOST_WORKERS`."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS)
