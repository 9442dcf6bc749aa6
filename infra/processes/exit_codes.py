"""The one table of how a child of this program ends, and the words for it.

Python itself ends with 1 after what nobody foresaw; a signal is a negative code.
"""

import os
import signal
import sys

DONE = 0
FAULT = 3
"""It said what a person can mend, where its parent reads it."""

ORPHANED = 86
"""Its parent was gone."""


def described_exit(code: int) -> str:
    """How a process with this exit code ended."""
    if code >= 0:
        return f"exit code {code}"
    names = {each.value: each.name for each in signal.Signals}
    return f"signal {names.get(-code, -code)}"


def end_process(code: int) -> None:
    """Leave at once: with every file written, tearing torch's modules down only costs seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
