"""Which objects of a federation's storage no record needs, and their removal.

The decision (`BucketNeeds.judged`) takes what a listing shows, and no client. Guaranteed of
`prune_bucket`: what is under a lock is never tried, what the storage refuses is counted and passed
over, and a key that is none of this program's stays. Killed anywhere it can be run again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from aggregator.upkeep.storage_needs import GRACE, NO_END, StorageNeeds
from data_contracts.protocol.bucket_layout import (
    FEED_PREFIX,
    MEMBERS_PREFIX,
    PROBE_PREFIX,
    STATUS_PREFIX,
    attempt_path_in_key,
    blob_digest_in_key,
)
from infra.storage.bucket_contents import BucketContents, StoredVersion
from infra.storage.object_store import AccessDeniedError

RECORDS, ADAPTERS = "records", "adapters"


class BucketKind(Enum):
    """Whose bucket it is: what lies in `plans` is the coordinator's."""

    PLANS = "plans"
    EVIDENCE = "evidence"


class Need(Enum):
    """Why an object stays, or that nothing needs it."""

    ALWAYS = "for as long as the federation lives"
    NEWEST = "a run's newest round"
    RETENTION = "its round's retention"
    RECENT = "new, or a round is under way"
    LOCKED = "a lock of the storage"
    REFUSED = "the storage refuses to remove it"
    FOREIGN = "not of this program"
    NONE = "nothing"


@dataclass(frozen=True)
class Judged:
    """What an object is, who needs it, and until when where that has an end."""

    kind: str
    need: Need
    until: datetime | None = None


@dataclass
class Tally:
    """Objects of one kind with one need; `until` is the latest."""

    objects: int = 0
    size: int = 0
    until: datetime | None = None

    def add(self, stored: StoredVersion, until: datetime | None) -> None:
        """Count one more."""
        self.objects, self.size = self.objects + 1, self.size + stored.size
        if until is not None:
            self.until = until if self.until is None else max(self.until, until)


@dataclass
class BucketTally:
    """What a bucket holds, by kind and need."""

    bucket: str
    rows: dict[tuple[str, Need], Tally] = field(default_factory=dict)

    def add(self, stored: StoredVersion, found: Judged) -> None:
        """Count one more."""
        self.rows.setdefault((found.kind, found.need), Tally()).add(stored, found.until)

    def unneeded(self) -> Tally:
        """All that nothing needs."""
        total = Tally()
        for (_, need), row in self.rows.items():
            if need is Need.NONE:
                total.objects, total.size = total.objects + row.objects, total.size + row.size
        return total


@dataclass(frozen=True)
class BucketNeeds:
    """What records need of one bucket, as of one moment."""

    bucket: BucketKind
    needs: StorageNeeds
    now: datetime

    def judged(self, stored: StoredVersion) -> Judged:
        """Who needs an object; pure."""
        key, is_plans = stored.key, self.bucket is BucketKind.PLANS
        if key.startswith((STATUS_PREFIX, PROBE_PREFIX)):
            return _of_the_day(stored, self.now)
        if is_plans and key.startswith((MEMBERS_PREFIX, FEED_PREFIX)):
            return Judged(key.split("/")[0], Need.ALWAYS)
        path, digest = attempt_path_in_key(key), blob_digest_in_key(key)
        if path is not None and is_plans:
            return Judged(RECORDS, Need.ALWAYS)
        if path is not None:
            return self._until(RECORDS, self.needs.attempts.get(path), stored)
        if digest is not None:
            blobs = self.needs.plan_blobs if is_plans else self.needs.held_blobs
            return self._until(ADAPTERS, blobs.get(digest), stored)
        return Judged("other", Need.FOREIGN)

    def _until(self, kind: str, until: datetime | None, stored: StoredVersion) -> Judged:
        needs = self.needs
        if until == NO_END:
            return Judged(kind, Need.NEWEST)
        if until is not None and until > self.now:
            return Judged(kind, Need.RETENTION, until)
        # A round under way may name what an earlier one has submitted already, by the same digest.
        if needs.is_under_way and (until is None or kind == ADAPTERS):
            return Judged(kind, Need.RECENT)
        if until is None and stored.modified >= needs.unnamed_before:
            return Judged(kind, Need.RECENT)
        return Judged(kind, Need.NONE)


def tally_bucket(
    contents: BucketContents, listed: Iterator[StoredVersion], by: BucketNeeds
) -> BucketTally:
    """What `listed` of a bucket is and who needs it; nothing is changed."""
    tally = BucketTally(contents.name)
    for stored in listed:
        tally.add(stored, by.judged(stored))
    return tally


def prune_bucket(contents: BucketContents, by: BucketNeeds, *, is_trial: bool) -> BucketTally:
    """Remove every version that nothing needs; with `is_trial` only count.

    What is counted as needed by nothing is what went, or would go.
    """
    tally = BucketTally(contents.name)
    # Listed to the end first: a listing from which things go may leave some out.
    for stored in list(_unneeded(contents, tally, by)):
        found = _unlocked(contents, stored, by)
        if found.need is Need.NONE and not is_trial:
            found = _deleted(contents, stored, found)
        tally.add(stored, found)
    return tally


def _unneeded(
    contents: BucketContents, tally: BucketTally, by: BucketNeeds
) -> Iterator[StoredVersion]:
    """What may go but for locks; the rest is counted."""
    for stored in contents.versions():
        found = by.judged(stored)
        if found.need is Need.NONE:
            yield stored
        else:
            tally.add(stored, found)


def _unlocked(contents: BucketContents, stored: StoredVersion, by: BucketNeeds) -> Judged:
    """As judged, after a look at the lock: one may be longer than what the plan asked for."""
    found = by.judged(stored)
    may_be_locked = found.kind in (RECORDS, ADAPTERS)
    lock = contents.lock(stored) if may_be_locked else None
    if lock is not None and lock.until > by.now:
        return Judged(found.kind, Need.LOCKED, lock.until)
    return found


def _deleted(contents: BucketContents, stored: StoredVersion, found: Judged) -> Judged:
    try:
        contents.delete(stored)
    except AccessDeniedError:
        return Judged(found.kind, Need.REFUSED)
    return found


def _of_the_day(stored: StoredVersion, now: datetime) -> Judged:
    """Progress that was shown, and what the storage was tried with."""
    until = stored.modified + GRACE
    need = Need.RECENT if until > now else Need.NONE
    return Judged(stored.key.split("/")[0], need, until if need is Need.RECENT else None)
