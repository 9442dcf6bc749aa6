"""What one party remembers of memberships and feed: files of its own, which only ever grow.

`feed.json` is written after the memberships that it names, and none is removed; so whoever copies
them meanwhile reads `feed.json` first.
"""

import json
from pathlib import Path
from typing import Any

from data_contracts.errors import ConsortiaError, UntrustedInputError
from data_contracts.protocol.envelope import verify
from data_contracts.protocol.records import Abort, Erasure, RoundPlan
from data_contracts.protocol.trusted_feed import (
    BEGINNING,
    FedAttempt,
    FeedPosition,
    TrustedFeed,
)
from infra.disk.durable_files import write_durably

STATE_NAME = "feed.json"
MEMBERS_DIRECTORY = "members"
REACHED, ERASURES = "reached", "erasures"
"""How far runs had come before their newest plans, by digest, and the erasures of the feed;
earlier releases did not write them."""


class KeptFeed:
    """The files below `directory`; damaged ones raise `owner_error`."""

    def __init__(self, directory: Path, owner_error: type[ConsortiaError]) -> None:
        self._members = directory / MEMBERS_DIRECTORY
        self._state_file = directory / STATE_NAME
        self._owner_error = owner_error
        self._state: bytes | None = None

    def membership(self, number: int) -> bytes | None:
        """The envelope of one version; None where it was not kept."""
        return _read_file(self._path(number))

    def keep_membership(self, number: int, envelope: bytes) -> None:
        """Write a version down that is not there yet."""
        if not self._path(number).exists():
            write_durably(self._path(number), envelope)

    def restore(self, feed: TrustedFeed) -> None:
        """Add to `feed`, which knows the oldest membership, the later ones and what was seen."""
        try:
            while (envelope := self.membership(len(feed.memberships) + 1)) is not None:
                feed.add_membership(envelope)
            self._state = _read_file(self._state_file)
            if self._state is not None:
                _restore(feed, json.loads(self._state))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._damaged(self._state_file, str(error)) from None
        except UntrustedInputError as error:
            found = f"{error.problem}: {error.found}"
            raise self._damaged(self._state_file.parent, found) from None

    def keep(self, feed: TrustedFeed) -> None:
        """Write down what `feed` has seen, where that has changed."""
        state = json.dumps(_state(feed), indent=1).encode()
        if state != self._state:
            write_durably(self._state_file, state)
            self._state = state

    def _path(self, number: int) -> Path:
        return self._members / f"{number:06d}.json"

    def _damaged(self, path: Path, found: str) -> ConsortiaError:
        return self._owner_error(
            f"what was seen of the feed, {path}",
            expected="the files that this program wrote",
            found=found,
            action="restore them from a backup; deleting them would let storage replay old plans",
        )


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


def _state(feed: TrustedFeed) -> dict[str, Any]:
    return {
        "membership_number": feed.membership.record.number,
        "feed_number": feed.head.number,
        "feed_digest": feed.head.digest,
        "attempts": [
            {
                "plan": attempt.plan.envelope.decode(),
                "abort": attempt.abort.envelope.decode() if attempt.abort else None,
            }
            for attempt in feed.attempts
        ],
        REACHED: {attempt.plan.digest: attempt.reached for attempt in feed.attempts},
        ERASURES: [erasure.envelope.decode() for erasure in feed.erasures.all],
    }


def _restore(feed: TrustedFeed, state: dict[str, Any]) -> None:
    """A membership that was handed over anew may be newer than what was read so far."""
    if state["membership_number"] > feed.membership.record.number:
        raise ValueError(f"membership {state['membership_number']} is missing beside it")
    reached = state.get(REACHED, {})
    attempts = [_attempt(feed, reached, **kept) for kept in state["attempts"]]
    head = FeedPosition(state["feed_number"], state["feed_digest"])
    keys, kept = feed.coordinator_keys(), state.get(ERASURES, [])
    erasures = [verify(envelope.encode(), Erasure, keys) for envelope in kept]
    feed.restore(head, attempts, state["membership_number"], erasures)


def _attempt(
    feed: TrustedFeed, reached: dict[str, list[int]], plan: str, abort: str | None
) -> FedAttempt:
    """As it was judged before it was kept: whether it still counts is the feed's to say."""
    keys = feed.coordinator_keys()
    ended = None if abort is None else verify(abort.encode(), Abort, keys)
    opened = verify(plan.encode(), RoundPlan, keys)
    round_number, attempt = reached.get(opened.digest, BEGINNING)
    return FedAttempt(opened, ended, (int(round_number), int(attempt)))


def _read_file(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


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
