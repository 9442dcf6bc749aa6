"""When a deployment starts rounds by itself: lines that Prefect takes and that come true.

Prefect judges a line only when the deployment is registered, and importing it takes seconds; what
is accepted here is a part of what Prefect accepts.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Annotated
from zoneinfo import available_timezones

from pydantic import AfterValidator

NICKNAMES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONGEST = dict(enumerate((31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), start=1))
"""Days of each month, in a leap year."""
_TERM = re.compile(r"(\*|[0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?(?:/([0-9]{1,2}))?")
_NTH_DAY = re.compile(r"([0-7]|[a-z]{3})#[1-5]")


@dataclass(frozen=True)
class _Field:
    """A field of a cron line: its values from `first` to `last`, and their names."""

    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()

    def values(self, text: str) -> set[int]:
        """What a list of terms stands for; raises ValueError."""
        return {value for term in text.split(",") for value in self._of_term(term)}

    def _of_term(self, term: str) -> range:
        found = _TERM.fullmatch(term)
        if found is None or (found[1] == "*" and found[2] is not None):
            raise self._unusable(term)
        if found[1] == "*":
            begin, end = self.first, self.last
        else:
            begin = self._value(found[1])
            end = self._value(found[2]) if found[2] else self.last if found[3] else begin
        step = int(found[3] or 1)
        if begin > end or not 1 <= step <= self.last:
            raise self._unusable(term)
        return range(begin, end + 1, step)

    def _value(self, text: str) -> int:
        value = self.names.index(text) + self.first if text in self.names else None
        if value is None and text.isdecimal():
            value = int(text)
        if value is None or not self.first <= value <= self.last:
            raise self._unusable(text)
        return value

    def _unusable(self, term: str) -> ValueError:
        return _unusable(f"{self.name} from {self.first} to {self.last} in place of {term!r}")


_MINUTE, _HOUR = _Field("minute", 0, 59), _Field("hour", 0, 23)
_DAY, _MONTH = _Field("day of month", 1, 31), _Field("month", 1, 12, _MONTHS)
_WEEKDAY = _Field("day of week", 0, 7, _DAYS)


def cron_line(text: str) -> str:
    """`text`, or ValueError unless it is a nickname or five fields of cron that some day fits."""
    if text in NICKNAMES:
        return text
    fields = text.lower().split()
    if not (text.isascii() and text.isprintable()) or len(fields) != 5:
        raise _unusable("minute, hour, day of month, month and day of week, a space between them")
    minute, hour, day, month, weekday = fields
    _MINUTE.values(minute)
    _HOUR.values(hour)
    months = _MONTH.values(month)
    _WEEKDAY.values(weekday[:-2] if _NTH_DAY.fullmatch(weekday) else weekday)
    first_day = 1 if day == "l" else min(_DAY.values(day))
    if weekday == "*" and first_day > max(_LONGEST[month] for month in months):
        raise _unusable("a day that some month has")
    return text


def time_zone(text: str) -> str:
    """`text`, or ValueError unless it is a zone of the IANA time zone database."""
    # Reading the database takes longer than reading the settings.
    if text != "UTC" and text not in _zones():
        raise ValueError('expected a time zone of the IANA database, such as "Europe/Berlin"')
    return text


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _unusable(expected: str) -> ValueError:
    return ValueError(f'expected a cron line such as "0 2 * * *": {expected}')


CronLine = Annotated[str, AfterValidator(cron_line)]
TimeZone = Annotated[str, AfterValidator(time_zone)]
