"""High-water marks: what the silo has already seen, so that storage cannot take it back in time.

Never fall. Kept for the membership, the plan feed and the clock.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from data_contracts.errors import SiloOperatorError, UntrustedInputError
from data_contracts.wire_types import INSTANT_FORMAT
from infra.clock import ALLOWED_SKEW
from infra.durable_files import write_durably

MARKS_NAME = "marks.json"


@dataclass(frozen=True)
class Marks:
    """Highest membership number and feed number with its digest, and the latest instant seen."""

    membership_number: int = 0
    membership_digest: str = ""
    feed_number: int = 0
    feed_digest: str = ""
    latest_instant: str = ""


def load_marks(home: Path) -> Marks:
    """The marks under `home`; a damaged file stops the agent rather than resetting them."""
    path = home / MARKS_NAME
    if not path.exists():
        return Marks()
    try:
        return Marks(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SiloOperatorError(
            f"high-water marks {path}",
            expected="the file this agent wrote",
            found=str(error),
            action="restore it from a backup; deleting it would let storage replay old plans",
        ) from None


def save_marks(home: Path, marks: Marks) -> None:
    """Write the marks durably."""
    write_durably(home / MARKS_NAME, json.dumps(asdict(marks), indent=1).encode())


def with_clock(marks: Marks, now: datetime) -> Marks:
    """Marks that remember `now`; raises SiloOperatorError when the clock went back."""
    text = now.strftime(INSTANT_FORMAT)
    if marks.latest_instant:
        latest = datetime.strptime(marks.latest_instant, INSTANT_FORMAT).replace(tzinfo=now.tzinfo)
        if now < latest - ALLOWED_SKEW:
            raise SiloOperatorError(
                "clock",
                expected=f"not more than {ALLOWED_SKEW} before {marks.latest_instant}",
                found=text,
                action="set the machine's clock; expired plans could pass as current otherwise",
            )
        if now <= latest:
            return marks
    return replace(marks, latest_instant=text)


def fell_behind(what: str, mark: int, found: int) -> UntrustedInputError:
    """The error for storage that shows an older state than the silo has seen before."""
    return UntrustedInputError(
        f"{what} in storage",
        expected=f"number {mark} or later, as this silo has already seen",
        found=f"{found}",
        action="ask the federation operator whether storage was rolled back; nothing was sent",
        reason="feed.behind",
    )
