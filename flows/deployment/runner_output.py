"""What a runner says when Prefect is gone, without the traces that Prefect prints and logs.

Only the traces go; what happened stays, as a line in the log and as the error that ends the runner.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO, cast

from flows.deployment.prefect_faults import is_fault

_GIVING_UP = "\nFailed the last "
"""What a runner prints before the traces of what it met, and then ends."""

_OBSERVER = "FlowRunCancellingObserver"
"""Prefect's watcher of cancelled runs, which asyncio reports when it ends with the server."""


@contextmanager
def without_traces() -> Iterator[None]:
    """Leave the traces of a Prefect that does not answer out of output and log, in the block."""
    handlers = _handlers()
    for handler in handlers:
        handler.addFilter(_without_trace)
    try:
        with redirect_stdout(cast(TextIO, _UntilGivenUp(sys.stdout))):
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(_without_trace)


def _handlers() -> set[logging.Handler]:
    named = [
        log for log in logging.root.manager.loggerDict.values() if isinstance(log, logging.Logger)
    ]
    return {handler for log in (logging.root, *named) for handler in log.handlers}


def _without_trace(record: logging.LogRecord) -> bool:
    fault = record.exc_info[1] if record.exc_info else None
    unreached = fault is not None and (is_fault(fault) or isinstance(fault, OSError))
    # The observer's websocket breaks in ways of its own.
    if unreached or record.name.endswith(_OBSERVER):
        record.exc_info = record.exc_text = None
    return not (record.name == "asyncio" and _OBSERVER in record.getMessage())


class _UntilGivenUp:
    """A text stream in front of another."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._given_up = stream, False

    def write(self, text: str) -> int:
        self._given_up = self._given_up or text.startswith(_GIVING_UP)
        return len(text) if self._given_up else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
