"""The latest instant this silo has seen: a clock that goes back would make expired plans current.

What it has seen of memberships and feed is kept by `infra.feed_reader`.
"""

from datetime import datetime
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from data_contracts.wire_types import INSTANT_FORMAT
from infra.clock import ALLOWED_SKEW
from infra.durable_files import write_durably

CLOCK_NAME = "latest-instant"


def remember_clock(home: Path, now: datetime) -> None:
    """Write `now` down if it is the latest; raises SiloOperatorError when the clock went back.

    A damaged file stops the agent rather than resetting what it has seen.
    """
    latest = _latest(home / CLOCK_NAME, now)
    if latest is not None and now < latest - ALLOWED_SKEW:
        raise SiloOperatorError(
            "clock",
            expected=f"not more than {ALLOWED_SKEW} before {latest.strftime(INSTANT_FORMAT)}",
            found=now.strftime(INSTANT_FORMAT),
            action="set the machine's clock; expired plans could pass as current otherwise",
        )
    if latest is None or now > latest:
        write_durably(home / CLOCK_NAME, now.strftime(INSTANT_FORMAT).encode())


def _latest(path: Path, now: datetime) -> datetime | None:
    try:
        text = path.read_text(encoding="utf-8")
        return datetime.strptime(text, INSTANT_FORMAT).replace(tzinfo=now.tzinfo)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SiloOperatorError(
            f"latest instant {path}",
            expected="the file this agent wrote",
            found=str(error),
            action="restore it from a backup, or delete it when the machine's clock is right",
        ) from None
