"""Time as a value that is passed in, so that rounds can be simulated without waiting."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

ALLOWED_SKEW = timedelta(minutes=5)
"""How far the clocks of two honest parties may differ."""


class Clock(Protocol):
    """UTC time in whole seconds and a way to wait."""

    def now(self) -> datetime: ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Current UTC time; records carry whole seconds, so the fraction is dropped."""
        return datetime.now(UTC).replace(microsecond=0)

    def sleep(self, seconds: float) -> None:
        """Block for `seconds`."""
        time.sleep(seconds)
