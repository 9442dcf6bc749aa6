"""Keeps a `TrustedFeed` up to date with a plans bucket, and with what `kept_feed` remembers of it.

What counts is decided in `data_contracts.protocol.trusted_feed`; here bytes are fetched. However
old a federation is, a refresh makes two listings and reads what is new. What was seen once is asked
for again: storage that no longer shows it has been taken back in time, and nothing is done then.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

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
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.membership_chain import follow_membership
from data_contracts.protocol.records import Membership
from data_contracts.protocol.trusted_feed import FedAttempt, FeedEntry, FeedPosition, TrustedFeed
from infra.records.documents import stored_document
from infra.records.kept_feed import KeptFeed
from infra.records.record_store import MAX_SLOT_OBJECTS
from infra.storage.object_store import Bucket, ObjectInfo
from infra.storage.single_writer import claim_key, finish_claim

AMBIGUOUS = {"feed.equivocation", "feed.chain", "feed.number"}
"""What only a holder of a coordinator's key can have brought about."""

log = logging.getLogger(__name__)


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
    _searched: set[str] = field(default_factory=set)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._kept = KeptFeed(self.directory, self.owner_error)

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
            self._read_missed_erasures(feed)
            self._kept.keep(feed)
            self._feed = feed
            return feed.copy()

    def _restored(self) -> TrustedFeed:
        """From disk; a damaged state stops the reader rather than resetting what it has seen."""
        feed = TrustedFeed(self.pinned)
        self._kept.keep_membership(self.pinned.record.number, self.pinned.envelope)
        self._add_earlier(feed)
        self._kept.restore(feed)
        return feed

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
            entry = self.entry(feed, position)
            yield entry
            position = FeedPosition(position.number - 1, entry.record.previous_digest)

    def entry(self, feed: TrustedFeed, position: FeedPosition) -> Verified[FeedEntry]:
        """One that is named by number and digest."""
        return feed.entry_at(position, self._fetched_entry(position))

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
                envelope = stored_document(self.bucket, info, MAX_ENVELOPE_BYTES).data
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
            self._kept.keep_membership(number, envelope)
            feed.add_membership(envelope)
        return bool(valid)

    def _add_earlier(self, feed: TrustedFeed) -> None:
        """Back to the first version, from disk or from storage: plans may name any of them."""
        while (digest := feed.memberships[0].record.previous_digest) is not None:
            number = feed.memberships[0].record.number - 1
            envelope = self._kept.membership(number)
            if envelope is None:
                key = record_key(membership_slot(number), digest)
                envelope = self._fetched(key, "memberships", number)
            feed.add_earlier_membership(envelope)
            self._kept.keep_membership(number, envelope)

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

    def _read_missed_erasures(self, feed: TrustedFeed) -> None:
        """Of entries that this party did not read: it joined later, or was away."""
        while (position := feed.lacks_erasure) is not None:
            feed.add_missed_erasure(position, self._fetched_entry(position))

    def _envelope(self, info: ObjectInfo) -> bytes | None:
        try:
            return stored_document(self.bucket, info, MAX_ENVELOPE_BYTES).data
        except UntrustedInputError:
            return None

    def _fetched_entry(self, position: FeedPosition) -> bytes:
        key = record_key(feed_slot(position.number), position.digest or "")
        return self._fetched(key, "plan feed", position.number)

    def _fetched(self, key: str, what: str, number: int) -> bytes:
        envelope = self.bucket.get(key, MAX_ENVELOPE_BYTES)
        if envelope is None:
            raise _fell_behind(what, number)
        return envelope


def _by_number(prefix: str, listed: list[ObjectInfo]) -> dict[int, list[ObjectInfo]]:
    """Record keys by the number of their slot, in the order of their keys."""
    found: dict[int, list[ObjectInfo]] = {}
    for info in sorted(listed, key=lambda info: info.key):
        number = number_in_key(prefix, info.key)
        if number is not None and digest_in_key(info.key) is not None:
            found.setdefault(number, []).append(info)
    return found


def _fell_behind(what: str, number: int) -> UntrustedInputError:
    return UntrustedInputError(
        f"{what} in storage",
        expected=f"number {number}, as this party has already seen",
        found="storage without it",
        action="ask the federation operator whether storage was rolled back; nothing was sent",
        rule="feed.behind",
    )
