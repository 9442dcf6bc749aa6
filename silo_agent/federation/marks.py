"""The latest instant this silo has seen: a clock that goes back would make expired plans current.

A clock that was ahead once must not lock the agent out until that date, so the mark also says how
far the feed had come when it was set. An entry of the feed that was signed later and names an
earlier instant shows that the mark was ahead, not that the clock went back: then the mark is set
anew. Without such an entry a person has to say so (`silo-agent forget-clock`).
What the silo has seen of memberships and feed is kept by `infra.records.feed_reader`.
"""

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.wire_types import INSTANT_FORMAT
from infra.clock import ALLOWED_SKEW
from infra.disk.durable_files import write_durably
from infra.terminal import command_line

log = logging.getLogger("silo-agent")

CLOCK_NAME = "latest-instant"


@dataclass(frozen=True)
class Seen:
    """The newest entry of the feed: its number (0: there is none), and when it was signed."""

    number: int
    issued_at: datetime | None


@dataclass(frozen=True)
class _Mark:
    """The latest instant, and the newest entry when it was written."""

    instant: datetime
    number: int


def remember_clock(home: Path, now: datetime, seen: Seen) -> None:
    """Write `now` down if it is the latest; raises SiloOperatorError when the clock went back.

    `seen` is the feed's newest entry, read and verified just now. A damaged file stops the agent
    rather than resetting what it has seen.
    """
    mark = _mark(home)
    if mark is not None and now < mark.instant - ALLOWED_SKEW:
        if not _shows_that_mark_was_ahead(mark, now, seen):
            raise _went_back(home, mark, now)
        log.warning(
            "the clock had been ahead, at %s: entry %d of the feed was signed later, at %s",
            mark.instant.strftime(INSTANT_FORMAT),
            seen.number,
            seen.issued_at.strftime(INSTANT_FORMAT) if seen.issued_at else "",
        )
        mark = None
    if mark is None or now > mark.instant:
        _write(home, now, seen)


def raise_clock(home: Path, instant: datetime, seen: Seen) -> None:
    """Write down an instant that this silo has signed, if it is the latest; as `remember_clock`."""
    mark = _mark(home)
    if mark is None or instant > mark.instant:
        _write(home, instant, seen)


def higher_clock(ours: bytes, theirs: bytes) -> bytes:
    """Which of two files names the later instant: of the home, and of a backup of it."""
    home, backup = (
        _parsed(data, f"latest instant of {whose}")
        for data, whose in ((ours, "the home"), (theirs, "the backup"))
    )
    return theirs if backup.instant > home.instant else ours


def forget_clock(home: Path) -> datetime | None:
    """Forget the latest instant, which a person knows to have been ahead; returns it."""
    try:
        mark = _mark(home)
    except SiloOperatorError:
        mark = None
    (home / CLOCK_NAME).unlink(missing_ok=True)
    return mark.instant if mark else None


def _shows_that_mark_was_ahead(mark: _Mark, now: datetime, seen: Seen) -> bool:
    """Storage can hold entries back, but not make a newer one: it is the coordinator's clock that
    speaks here, and it agrees with this machine's."""
    return (
        seen.issued_at is not None
        and seen.number > mark.number
        and abs(now - seen.issued_at) < mark.instant - now
        and seen.issued_at <= now + ALLOWED_SKEW
    )


def _mark(home: Path) -> _Mark | None:
    path = home / CLOCK_NAME
    forget = command_line("silo-agent", "forget-clock", "--home", home)
    try:
        return _parsed(path.read_bytes(), f"latest instant {path}", forget)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _damaged(f"latest instant {path}", str(error), forget) from None


def _write(home: Path, instant: datetime, seen: Seen) -> None:
    written = {"instant": instant.strftime(INSTANT_FORMAT), "feed_number": seen.number}
    write_durably(home / CLOCK_NAME, json.dumps(written).encode())


def _parsed(data: bytes, what: str, forget: str = "silo-agent forget-clock") -> _Mark:
    try:
        found = json.loads(data)
        instant = datetime.strptime(found["instant"], INSTANT_FORMAT).replace(tzinfo=UTC)
        return _Mark(instant, int(found["feed_number"]))
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(what, str(error), forget) from None


def _damaged(what: str, found: str, forget: str) -> SiloOperatorError:
    return SiloOperatorError(
        what,
        expected="the file this agent wrote",
        found=found[:100],
        action=f"restore it from a backup; or, when the machine's clock is right, run `{forget}`",
    )


def _went_back(home: Path, mark: _Mark, now: datetime) -> SiloOperatorError:
    forget = command_line("silo-agent", "forget-clock", "--home", home)
    return SiloOperatorError(
        "clock",
        expected=f"not more than {ALLOWED_SKEW} before {mark.instant.strftime(INSTANT_FORMAT)}, "
        "which this machine's clock has shown",
        found=now.strftime(INSTANT_FORMAT),
        action="set the machine's clock if it is wrong now; expired plans could pass as current "
        f"otherwise. If it was ahead before and is right now, run `{forget}`, or wait for the "
        "coordinator's next plan, which shows it too",
    )
