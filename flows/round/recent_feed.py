"""What one flow run reads of the coordinator's own bucket: its followers share one reading."""

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock
from typing import Generic, TypeVar

from aggregator.coordinator import Coordinator
from aggregator.feed.reading import own_records, read_federation
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.records.record_store import AttemptReading

T = TypeVar("T")


class _Recent(Generic[T]):
    """What was read within half a poll.

    No dataclass: Prefect looks for futures in whatever a task is given, field by field.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._last: tuple[datetime, T] | None = None

    def read(self, c: Coordinator, now_read: Callable[[], T]) -> T:
        """Read it, or take what was read just now."""
        fresh = timedelta(seconds=c.settings.round.poll_seconds / 2)
        with self._lock:
            now = c.clock.now()
            # A clock that was set back makes nothing recent.
            if self._last is None or not timedelta(0) <= now - self._last[0] < fresh:
                self._last = (now, now_read())
            return self._last[1]


class RecentFeed:
    """What storage said within half a poll, so that a poll of many silos reads the feed once, and
    once what the coordinator has signed about a plan."""

    def __init__(self, c: Coordinator) -> None:
        self.c = c
        self._feed = _Recent[TrustedFeed]()
        self._own = _Recent[AttemptReading]()

    def read(self) -> TrustedFeed:
        """Read it, or take what was read just now; whoever asks meanwhile waits for that one."""
        return self._feed.read(self.c, lambda: read_federation(self.c))

    def signed(self, plan: Verified[RoundPlan]) -> AttemptReading:
        """The coordinator's own records on the one plan that is followed, in the same way."""
        return self._own.read(self.c, lambda: own_records(self.c, self.read(), plan))
