"""The feed as one flow run reads it: those who follow a silo each share one reading."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock

from aggregator.coordinator import Coordinator
from aggregator.feed.reading import read_federation
from data_contracts.protocol.trusted_feed import TrustedFeed


@dataclass
class RecentFeed:
    """What storage said within half a poll, so that a poll of many silos reads the feed once."""

    c: Coordinator
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)
    _last: tuple[datetime, TrustedFeed] | None = field(default=None, init=False, repr=False)

    def read(self) -> TrustedFeed:
        """Read it, or take what was read just now; whoever asks meanwhile waits for that one."""
        fresh = timedelta(seconds=self.c.settings.round.poll_seconds / 2)
        with self._lock:
            now = self.c.clock.now()
            # A clock that was set back makes nothing recent.
            if self._last is None or not timedelta(0) <= now - self._last[0] < fresh:
                self._last = (now, read_federation(self.c))
            return self._last[1]
