"""When a schedule starts rounds, in words: usually, next, and where clocks change.

Asks Prefect's own schedule, as its server does, so what is said is what happens: a night's round
starts once, whether its hour is skipped or repeated that night.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from prefect.server.schemas.schedules import CronSchedule

from aggregator.settings.federation import ScheduleSection

YEAR_HOURS = 366 * 24
_MINUTE = timedelta(minutes=1)
_MOST_MOVED = 60
"""Starts that an hour can have."""


def usual_words(schedule: ScheduleSection) -> str:
    """ "every day at 02:00 UTC" where the line is that simple, else the line itself."""
    if schedule.cron is None:
        return "none"
    fields = schedule.cron.split()
    daily = len(fields) == 5 and fields[2:] == ["*", "*", "*"]
    if daily and fields[0].isdecimal() and fields[1].isdecimal():
        return f"every day at {int(fields[1]):02}:{int(fields[0]):02} {schedule.timezone}"
    return f'cron "{schedule.cron}" in {schedule.timezone}'


def next_start(schedule: ScheduleSection, now: datetime) -> datetime | None:
    """The first start after `now`, in UTC; None without a schedule."""
    if schedule.cron is None:
        return None
    # Within a skipped hour the first ones that are given have been: that hour's starts, moved.
    cron = _cron(schedule.cron, schedule.timezone)
    for count in (1, _MOST_MOVED + 1):
        found = asyncio.run(cron.get_dates(count, now + _MINUTE))
        to_come = [start for start in (each.astimezone(UTC) for each in found) if start > now]
        if to_come:
            return to_come[0]
    return None


def clock_change_words(schedule: ScheduleSection, now: datetime) -> list[str]:
    """A line for each change of clocks, within a year of `now`, that falls on a start."""
    if schedule.cron is None:
        return []
    changes = _clock_changes(ZoneInfo(schedule.timezone), now)
    lines = [_word(schedule.cron, schedule.timezone, change) for change in changes]
    return [line for line in lines if line is not None]


@dataclass(frozen=True)
class _ClockChange:
    """At `at` (UTC) a zone goes from one offset to another."""

    at: datetime
    before: timedelta
    after: timedelta

    def wall_times(self) -> tuple[datetime, datetime]:
        """The first wall time that is skipped or repeated, and the first that no longer is."""
        first, second = sorted((self.before, self.after))
        return self.at + first, self.at + second


def _clock_changes(zone: ZoneInfo, now: datetime) -> Iterator[_ClockChange]:
    start = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    hours = (start + timedelta(hours=hour) for hour in range(YEAR_HOURS))
    for hour, following in pairwise(hours):
        before, after = _offset(zone, hour), _offset(zone, following)
        if before != after:
            at = next(m for m in _minutes(hour, following) if _offset(zone, m) == after)
            yield _ClockChange(at, before, after)


def _word(cron: str, zone: str, change: _ClockChange) -> str | None:
    """What becomes of the starts that are skipped or repeated; None where there are none."""
    begin, end = change.wall_times()
    wall = _starts(cron, "UTC", begin, end)
    if not wall:
        return None
    named = f"{wall[0]:%H:%M}" + (f" to {wall[-1]:%H:%M}" if len(wall) > 1 else "")
    length = end - begin
    around = _starts(cron, zone, change.at - length, change.at + length)
    if change.after < change.before:
        when = _times(around)
        return f"{begin:%Y-%m-%d}: {named} comes twice in {zone}; a round starts once, at {when}"
    usual = _starts(cron, "UTC", begin - length, end + length)
    moved = [at for at in around if _wall(at, zone) not in usual]
    told = f"the round starts at {_times(moved)}" if moved else "no round starts for it"
    return f"{begin:%Y-%m-%d}: {named} does not exist in {zone}; {told}"


def _times(starts: list[datetime]) -> str:
    return ", ".join(f"{at:%H:%M}" for at in starts) + " UTC"


def _starts(cron: str, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    """In UTC, from `begin` to before `end`."""
    found = asyncio.run(_cron(cron, zone).get_dates(None, begin, end - _MINUTE))
    return [at.astimezone(UTC) for at in found]


def _cron(cron: str, zone: str) -> CronSchedule:
    return CronSchedule(cron=cron, timezone=zone)


def _wall(at: datetime, zone: str) -> datetime:
    """The wall time there, written as if it were UTC."""
    return at.astimezone(ZoneInfo(zone)).replace(tzinfo=UTC)


def _offset(zone: ZoneInfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta(0)


def _minutes(begin: datetime, end: datetime) -> Iterator[datetime]:
    return (begin + _MINUTE * n for n in range(int((end - begin) / _MINUTE) + 1))
