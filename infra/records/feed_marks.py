"""What was seen of memberships and feed: the files, which of two has seen more, what proves more.

`FeedReader` writes `feed.json` after the memberships that it names, and removes none; so whoever
copies them while it does reads `feed.json` first.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data_contracts.errors import ConsortiaError, UntrustedInputError
from data_contracts.protocol.records import RoundRecord
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.clock import ALLOWED_SKEW
from infra.records.feed_reader import MEMBERS_DIRECTORY, STATE_NAME


def feed_files(directory: Path) -> list[Path]:
    """The files below a feed's directory, in the order in which they have to be read."""
    return [directory / STATE_NAME, *sorted((directory / MEMBERS_DIRECTORY).glob("[0-9]*.json"))]


def higher_feed(ours: bytes, theirs: bytes) -> bytes:
    """Which of two `feed.json` has seen more; ConsortiaError where neither has.

    What one party has seen only ever rises, in memberships and in the feed under each.
    """
    one, other = _seen(ours, "the home's"), _seen(theirs, "the backup's")
    if one[:2] == other[:2] and one[2] != other[2]:
        raise _apart(f"two entries {one[1]}")
    if one[0] >= other[0] and one[1] >= other[1]:
        return ours
    if other[0] >= one[0] and other[1] >= one[1]:
        return theirs
    raise _apart("one that knows a newer membership, and one that knows a later entry")


def require_feed_reaches(feed: TrustedFeed, signed: Iterable[RoundRecord]) -> None:
    """Raise UntrustedInputError where what was `signed` proves more of the feed than it shows.

    A plan that a later membership made void is none of it any more: a record that is older than the
    newest membership, unless that is the first, proves nothing.
    """
    for record in records_beyond(feed, signed):
        raise UntrustedInputError(
            "plan feed in storage",
            expected=f"the plan of round {record.round} attempt {record.attempt} of {record.run}, "
            f"on which {_signer(record)} signed: {record.kind}",
            found="a feed that ends before it",
            action="ask whoever runs the storage whether it was rolled back; nothing is signed "
            "until it shows that plan again",
            rule="feed.behind",
        )


def records_beyond(feed: TrustedFeed, signed: Iterable[RoundRecord]) -> Iterator[RoundRecord]:
    """Those of what was `signed` whose plan is later than any that the feed shows."""
    newest_membership = feed.membership.record
    is_first = newest_membership.number == 1
    settled = None if is_first else newest_membership.issued_at + ALLOWED_SKEW
    for record in signed:
        known = feed.attempt_of_run(record.run)
        plan = known.plan.record if known is not None else None
        newest = (plan.round, plan.attempt) if plan is not None else (0, 0)
        is_later = (record.round, record.attempt) > newest
        if is_later and (settled is None or record.issued_at > settled):
            yield record


def _signer(record: RoundRecord) -> str:
    silo = getattr(record, "silo", None)
    return f"silo {silo}" if silo else "this coordinator"


def _seen(state: bytes, whose: str) -> tuple[int, int, Any]:
    try:
        seen = json.loads(state)
        return int(seen["membership_number"]), int(seen["feed_number"]), seen["feed_digest"]
    except (ValueError, LookupError, TypeError) as error:
        raise ConsortiaError(
            f"{whose} {STATE_NAME}",
            expected="the file that this program wrote",
            found=str(error)[:100],
            action="move it away and restore again; nothing was restored",
        ) from None


def _apart(found: str) -> ConsortiaError:
    return ConsortiaError(
        f"{STATE_NAME} of the home and of the backup",
        expected="one history, of which one of the two has seen more",
        found=found,
        action="restore into an empty directory, and find out which of the two homes is the "
        "federation's; nothing was restored",
    )
