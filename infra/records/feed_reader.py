"""Keeps a `TrustedFeed` up to date with a plans bucket, and remembers it on this machine's disk.

What counts is decided in `data_contracts.protocol.trusted_feed`; here bytes are fetched. However
old a federation is, a refresh makes two listings and reads what is new. What was seen once is asked
for again: storage that no longer shows it has been taken back in time, and nothing is done then.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from data_contracts.errors import (
    ConsortiaError,
    FederationOperatorError,
    UntrustedInputError,
    contradiction,
)
from data_contracts.protocol.bucket_layout import (
    FEED_PREFIX,
    MEMBERS_PREFIX,
    digest_in_key,
    feed_slot,
    membership_slot,
    number_in_key,
    record_key,
)
from data_contracts.protocol.dsse import MAX_ENVELOPE_BYTES
from data_contracts.protocol.envelope import Verified, narrowed, unverified_record, verify
from data_contracts.protocol.membership_chain import follow_membership
from data_contracts.protocol.records import Abort, Membership, RoundPlan
from data_contracts.protocol.trusted_feed import FedAttempt, FeedEntry, FeedPosition, TrustedFeed
from infra.disk.durable_files import write_durably
from infra.records.record_store import MAX_SLOT_OBJECTS, document_in
from infra.storage.object_store import Bucket, ObjectInfo
from infra.storage.single_writer import claim_key, finish_claim

AMBIGUOUS = {"feed.equivocation", "feed.chain", "feed.number"}
"""What only a holder of a coordinator's key can have brought about."""

log = logging.getLogger(__name__)

STATE_NAME = "feed.json"
MEMBERS_DIRECTORY = "members"


@dataclass
class FeedReader:
    """The feed of one federation as one party sees it; safe to share between threads.

    `directory` is this party's alone. A coordinator also finishes what it claimed and did not get
    round to writing (`finishes_claims`), for which it needs the right to write.
    """

    directory: Path
    bucket: Bucket
    pinned: Verified[Membership]
    finishes_claims: bool = False
    owner_error: type[ConsortiaError] = FederationOperatorError
    _feed: TrustedFeed | None = None
    _kept: bytes = b""
    _searched: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def refresh(self) -> TrustedFeed:
        """Memberships and feed as storage has them now; raises UntrustedInputError."""
        return self._refreshed(self._read_feed)

    def last_seen(self) -> TrustedFeed:
        """The feed as it was when it was last refreshed; storage is asked for nothing but
        memberships before the one that was handed over, and those once."""
        with self._lock:
            return (self._feed or self._restored()).copy()

    def refresh_as_far_as_it_is_clear(self) -> TrustedFeed:
        """As `refresh`, up to the last entry that nobody can have meddled with.

        For whoever changes the membership: what a thief wrote into the feed must not be able to
        stop the very revocation that makes it nothing.
        """
        return self._refreshed(self._read_clear_feed)

    def _refreshed(self, read_feed: Callable[[TrustedFeed], None]) -> TrustedFeed:
        with self._lock:
            feed = self._feed or self._restored()
            self._read_memberships(feed)
            read_feed(feed)
            self._keep(feed)
            self._feed = feed
            return feed.copy()

    def _read_clear_feed(self, feed: TrustedFeed) -> None:
        try:
            self._read_feed(feed)
        except UntrustedInputError as error:
            if error.rule not in AMBIGUOUS:
                raise
            log.warning(
                "entry %d is the last of the feed that is clear; what follows waits: %s",
                feed.head.number,
                error,
            )

    def adopt(self, attempt: FedAttempt) -> None:
        """Remember a run's newest attempt that was found with `entries_back`."""
        with self._lock:
            if self._feed is not None:
                self._feed.adopt(attempt)

    def adopt_none(self, run: str) -> None:
        """Remember that the feed has no plan of a run; the first one is noticed as it comes."""
        self._searched.add(run)

    def has_no(self, run: str) -> bool:
        """Whether `entries_back` was searched for a run before, and nothing found."""
        return run in self._searched

    def entries_back(self, feed: TrustedFeed) -> Iterator[Verified[FeedEntry]]:
        """Every entry from the newest to the first, one read for each; for what is long past."""
        position = feed.head
        while position.digest is not None:
            entry = feed.entry_at(position, self._fetched_entry(position))
            yield entry
            position = FeedPosition(position.number - 1, entry.record.previous_digest)

    # Memberships

    def _read_memberships(self, feed: TrustedFeed) -> None:
        newest = feed.membership
        slot = membership_slot(newest.record.number)
        listed = self.bucket.list_keys(MEMBERS_PREFIX, after=slot)
        if not any(info.key == record_key(slot, newest.digest) for info in listed):
            raise _fell_behind("memberships", newest.record.number)
        by_number = _by_number(MEMBERS_PREFIX, listed)
        while self._add_successor(feed, by_number.get(feed.membership.record.number + 1, [])):
            self._searched.clear()

    def _add_successor(self, feed: TrustedFeed, successors: list[ObjectInfo]) -> bool:
        """Whether there is one; what the root keys have not signed is nothing, and two halt."""
        number = feed.membership.record.number + 1
        valid: dict[str, bytes] = {}
        for info in successors[:MAX_SLOT_OBJECTS]:
            try:
                envelope = document_in(self.bucket, info, MAX_ENVELOPE_BYTES)
                valid[follow_membership(feed.membership, envelope).digest] = envelope
            except UntrustedInputError as error:
                log.warning("%s does not count as membership %d: %s", info.key, number, error)
        if len(valid) > 1:
            raise contradiction(
                f"membership {number}",
                "one version that the root keys signed",
                f"{len(valid)} valid versions",
                "membership.slot",
            )
        for envelope in valid.values():
            write_durably(self._member_path(number), envelope)
            feed.add_membership(envelope)
        return bool(valid)

    def _add_earlier(self, feed: TrustedFeed) -> None:
        """Back to the first version, from disk or from storage: plans may name any of them."""
        while feed.memberships[0].record.previous_digest is not None:
            oldest = feed.memberships[0].record
            path = self._member_path(oldest.number - 1)
            envelope = _read_file(path)
            if envelope is None:
                key = record_key(membership_slot(oldest.number - 1), oldest.previous_digest or "")
                envelope = self.bucket.get(key, MAX_ENVELOPE_BYTES)
                if envelope is None:
                    raise _fell_behind("memberships", oldest.number - 1)
                feed.add_earlier_membership(envelope)
                write_durably(path, envelope)
            else:
                feed.add_earlier_membership(envelope)

    # The feed

    def _read_feed(self, feed: TrustedFeed) -> None:
        if feed.lacks_head:
            feed.add_head(self._fetched_entry(feed.head))
        head = feed.head
        slot = feed_slot(head.number) if head.digest else ""
        listed = self.bucket.list_keys(FEED_PREFIX, after=slot)
        if head.digest and not any(i.key == record_key(slot, head.digest) for i in listed):
            raise _fell_behind("plan feed", head.number)
        by_number = _by_number(FEED_PREFIX, listed)
        while True:
            number = feed.head.number + 1
            entries = by_number.get(number, [])[:MAX_SLOT_OBJECTS]
            if feed.add_entry([e for e in map(self._envelope, entries) if e is not None]):
                continue
            slot, epoch = feed_slot(number), feed.governing(number).digest
            claim = claim_key(slot, 1, epoch)
            if not self.finishes_claims or not any(info.key == claim for info in listed):
                return
            if not (done := finish_claim(self.bucket, slot, feed.next_entry, epoch)):
                return
            feed.add_entry([done.envelope])

    def _envelope(self, info: ObjectInfo) -> bytes | None:
        try:
            return document_in(self.bucket, info, MAX_ENVELOPE_BYTES)
        except UntrustedInputError:
            return None

    def _fetched_entry(self, position: FeedPosition) -> bytes:
        key = record_key(feed_slot(position.number), position.digest or "")
        envelope = self.bucket.get(key, MAX_ENVELOPE_BYTES)
        if envelope is None:
            raise _fell_behind("plan feed", position.number)
        return envelope

    # What is kept

    def _restored(self) -> TrustedFeed:
        """From disk; a damaged state stops the reader rather than resetting what it has seen."""
        feed = TrustedFeed(self.pinned)
        own = self._member_path(self.pinned.record.number)
        if not own.exists():
            write_durably(own, self.pinned.envelope)
        self._add_earlier(feed)
        try:
            while (
                envelope := _read_file(self._member_path(len(feed.memberships) + 1))
            ) is not None:
                feed.add_membership(envelope)
            state = _read_file(self.directory / STATE_NAME)
            if state is not None:
                self._kept = state
                self._restore(feed, json.loads(state))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise self._damaged(self.directory / STATE_NAME, str(error)) from None
        except UntrustedInputError as error:
            raise self._damaged(self.directory, f"{error.problem}: {error.found}") from None
        return feed

    def _restore(self, feed: TrustedFeed, state: dict[str, Any]) -> None:
        """A membership that was handed over anew may be newer than what was read so far."""
        if state["membership_number"] > feed.membership.record.number:
            raise ValueError(f"membership {state['membership_number']} is missing beside it")
        attempts = [_attempt(feed, **kept) for kept in state["attempts"]]
        head = FeedPosition(state["feed_number"], state["feed_digest"])
        feed.restore(head, attempts, state["membership_number"])

    def _keep(self, feed: TrustedFeed) -> None:
        state = json.dumps(
            {
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
            },
            indent=1,
        ).encode()
        if state != self._kept:
            write_durably(self.directory / STATE_NAME, state)
            self._kept = state

    def _damaged(self, path: Path, found: str) -> ConsortiaError:
        return self.owner_error(
            f"what was seen of the feed, {path}",
            expected="the files that this program wrote",
            found=found,
            action="restore them from a backup; deleting them would let storage replay old plans",
        )

    def _member_path(self, number: int) -> Path:
        return self.directory / MEMBERS_DIRECTORY / f"{number:06d}.json"


def _attempt(feed: TrustedFeed, plan: str, abort: str | None) -> FedAttempt:
    """As it was kept: whether it still counts is the feed's to say."""
    envelope = plan.encode()
    claimed = unverified_record(envelope, RoundPlan)
    verified = verify(envelope, RoundPlan, [_coordinator_of(feed, claimed.membership_number)])
    if abort is None:
        return FedAttempt(verified)
    keys = {membership.record.coordinator_key for membership in feed.memberships}
    return FedAttempt(verified, narrowed(verify(abort.encode(), Abort, keys), Abort))


def _coordinator_of(feed: TrustedFeed, number: int) -> str:
    return feed.memberships[number - 1].record.coordinator_key


def _by_number(prefix: str, listed: list[ObjectInfo]) -> dict[int, list[ObjectInfo]]:
    """Record keys by the number of their slot, in the order of their keys."""
    found: dict[int, list[ObjectInfo]] = {}
    for info in sorted(listed, key=lambda info: info.key):
        number = number_in_key(prefix, info.key)
        if number is not None and digest_in_key(info.key) is not None:
            found.setdefault(number, []).append(info)
    return found


def _read_file(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _fell_behind(what: str, number: int) -> UntrustedInputError:
    return UntrustedInputError(
        f"{what} in storage",
        expected=f"number {number}, as this party has already seen",
        found="storage without it",
        action="ask the federation operator whether storage was rolled back; nothing was sent",
        rule="feed.behind",
    )
