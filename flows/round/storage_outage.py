"""Waiting for an object storage that is away, until the round's own deadline.

Only what can pass by itself is waited for (`StorageUnavailableError`): no answer, or one
that says "not now". A wrong credential or a missing bucket is raised at once. Whatever was being
done is done again from its start, so it has to be a step that can be run again. While storage is
away one line a minute says so, however many steps wait for it, and one more when it is back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock
from typing import TypeVar

from infra.clock import Clock
from infra.storage.object_store import StorageUnavailableError

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
SAY_EVERY = timedelta(minutes=1)
SHORTEST_WAIT = timedelta(minutes=30)
"""How long an outage is waited out at least: before there is a plan, and where its deadline is near
or over. What is left to do after a plan's deadline has none of its own."""

_T = TypeVar("_T")


def waits_until(since: datetime, deadline: datetime | None) -> datetime:
    """When an outage that began at `since` is no longer waited out; `deadline` is the plan's."""
    shortest = since + SHORTEST_WAIT
    return shortest if deadline is None else max(shortest, deadline)


def pause_seconds(failures: int, left: timedelta) -> float:
    """Seconds before the next try after `failures` of them: doubled each time, never past the end.

    `left` is the time until the end; the last try is made then.
    """
    doubled = FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10)
    return min(doubled, LONGEST_PAUSE_SECONDS, left.total_seconds())


@dataclass
class _Outage:
    """What was said of an outage that has not ended."""

    since: datetime
    said_at: datetime | None = None


class OutageWait:
    """Runs steps that need the storage; one for a flow run, shared by its threads."""

    def __init__(self, clock: Clock, say: Callable[[str], None]) -> None:
        self._clock = clock
        self._say = say
        self._lock = Lock()
        self._outage: _Outage | None = None

    def through(self, deadline: datetime | None, step: Callable[[], _T]) -> _T:
        """What `step` returns; raises its fault where storage is away for too long."""
        until: datetime | None = None
        failures = 0
        while True:
            try:
                result = step()
            except StorageUnavailableError as error:
                now = self._clock.now()
                until = until or waits_until(now, deadline)
                if now >= until:
                    raise
                failures += 1
                self._report_outage(error, now, until)
                self._clock.sleep(pause_seconds(failures, until - now))
            else:
                self._report_end()
                return result

    def _report_outage(
        self, error: StorageUnavailableError, now: datetime, until: datetime
    ) -> None:
        with self._lock:
            outage = self._outage = self._outage or _Outage(now)
            if outage.said_at is not None and now - outage.said_at < SAY_EVERY:
                return
            outage.said_at = now
        self._say(
            f"waiting for {error.problem} since {_utc(outage.since)}, until {_utc(until)} at the "
            f"latest: {error.found}"
        )

    def _report_end(self) -> None:
        with self._lock:
            outage, self._outage = self._outage, None
        if outage is not None:
            seconds = (self._clock.now() - outage.since).total_seconds()
            self._say(f"object storage answers again, after {seconds:.0f} s: the round goes on")


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
