"""What an agent shows of its work on its own machine, beside the status: exporters by choice.

Nothing here is part of what leaves a silo, and nothing leaves through it but to an MLflow server
that the silo operator named. An exporter that waits or fails never holds up the agent.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Protocol, Self

from silo_agent.metrics.readings import Moment

log = logging.getLogger("silo-agent")

MOST_WAITING = 10_000
"""Moments that wait for a slow exporter; those after them are left out."""
CLOSING_SECONDS = 5.0


class Exporter(Protocol):
    """Shows moments to people of this silo; `start` raises SiloOperatorError where it cannot."""

    def start(self) -> None: ...

    def show(self, moment: Moment) -> None: ...

    def close(self) -> None: ...


class Writer(Protocol):
    """Writes moments to a place that can be full, slow or away; any exception is a fault of it."""

    def write(self, moments: Sequence[Moment]) -> None: ...

    def close(self) -> None: ...


class Metrics:
    """The exporters of one agent, which run inside `with`; without any it does nothing."""

    def __init__(self, exporters: Sequence[Exporter] = ()) -> None:
        self._exporters = tuple(exporters)
        self._running = ExitStack()
        self._runs = False

    def show(self, moment: Moment) -> None:
        """Show what the agent does now."""
        if self._runs:
            for exporter in self._exporters:
                exporter.show(moment)

    def __enter__(self) -> Self:
        with ExitStack() as running:
            for exporter in self._exporters:
                exporter.start()
                running.callback(exporter.close)
            self._running = running.pop_all()
        self._runs = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runs = False
        self._running.close()


class InBackground:
    """An exporter whose `writer` works in a thread of its own.

    A fault is logged once, and once more when it is over; what was to be written meanwhile is lost.
    `name` is what the log calls it.
    """

    def __init__(self, name: str, writer: Writer) -> None:
        self._name, self._writer = name, writer
        self._waiting = SimpleQueue[Moment | None]()
        self._is_faulty = False
        self._thread = Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def show(self, moment: Moment) -> None:
        """Have it written, unless there is nothing in it for a chart or too much waits already."""
        if moment.measured and self._waiting.qsize() < MOST_WAITING:
            self._waiting.put(moment)

    def close(self) -> None:
        """Write what waits; what takes longer than CLOSING_SECONDS is lost."""
        self._waiting.put(None)
        self._thread.join(CLOSING_SECONDS)

    def _work(self) -> None:
        is_over = False
        while not is_over:
            taken = [self._waiting.get()]
            while not self._waiting.empty():
                taken.append(self._waiting.get())
            is_over = taken[-1] is None
            self._write([moment for moment in taken if moment is not None])
        self._guarded(self._writer.close)

    def _write(self, moments: list[Moment]) -> None:
        if moments and self._guarded(lambda: self._writer.write(moments)) and self._is_faulty:
            self._is_faulty = False
            log.info("%s: written again", self._name)

    def _guarded(self, work: Callable[[], None]) -> bool:
        """Whether `work` was done."""
        try:
            work()
        except Exception as error:
            if not self._is_faulty:
                self._is_faulty = True
                log.warning("%s: not written, training goes on: %s", self._name, _words(error))
            return False
        return True


def _words(error: Exception) -> str:
    """The first line of what a library says, at a length that a log can show."""
    first = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:300]
