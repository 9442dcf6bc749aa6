"""A clock that only moves when somebody sleeps."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 5, 9, 0, 0, tzinfo=UTC)


class FakeClock:
    """Satisfies `infra.clock.Clock`; shared by everybody in a simulated federation."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        """Simulated UTC time, in whole seconds like the real clock."""
        return self._now.replace(microsecond=0)

    def sleep(self, seconds: float) -> None:
        """Move time on at once."""
        self._now += timedelta(seconds=seconds)
