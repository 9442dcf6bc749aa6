"""Records in buckets: written once, found by listing their slot, believed only when verified.

Guaranteed to callers: a record counts only if its bytes hash to the digest in its key and pass
`envelope.verify`; a slot with two different valid records is never resolved by choosing one; the
work per slot is bounded whatever its writer puts there. Whether a record belongs to the round or
silo that the caller had in mind is for the caller to judge.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from data_contracts.artifact import digest_of_bytes
from data_contracts.bucket_layout import digest_in_key, feed_slot, membership_slot, record_key
from data_contracts.envelope import MAX_ENVELOPE_BYTES, Verified, peek_kind, verify
from data_contracts.errors import UntrustedInputError
from data_contracts.records import Abort, Membership, Record, RoundPlan, Status
from infra.object_store import BoundExceededError, Bucket, ObjectInfo

MAX_SLOT_OBJECTS = 64

RecordT = TypeVar("RecordT", bound=Record)


@dataclass(frozen=True)
class Absent:
    """No valid record; `rejected` says why for each object that looked like one."""

    rejected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found(Generic[RecordT]):
    """Exactly one valid record."""

    verified: Verified[RecordT]


@dataclass(frozen=True)
class Equivocation:
    """Two or more valid records that differ, by envelope digest, sorted."""

    digests: tuple[str, ...]


SlotReading = Absent | Found[RecordT] | Equivocation
FeedEntry = RoundPlan | Abort


def write_record(bucket: Bucket, slot: str, verified: Verified[Any]) -> None:
    """Create the record in `slot` under its digest; the same record again is success."""
    bucket.put_once(record_key(slot, verified.digest), verified.envelope)


def read_slot(
    bucket: Bucket,
    slot: str,
    record_type: type[RecordT],
    keys: Collection[str],
    threshold: int = 1,
    belongs: Callable[[RecordT], bool] | None = None,
) -> SlotReading[RecordT]:
    """What `slot` holds; of more than MAX_SLOT_OBJECTS records the first in key order count.

    A record for which `belongs` is false, say a genuine one of another round that somebody copied
    here, does not count as being in the slot, so that nobody can be framed with it.
    """
    types = {record_type.payload_type(): record_type}
    return _judge_slot(bucket, slot, types, keys, threshold, belongs)


def read_feed(
    bucket: Bucket,
    first_number: int,
    keys: Collection[str],
    previous_digest: str | None = None,
) -> list[Verified[FeedEntry]]:
    """The feed from `first_number` to its first absent number, without gaps.

    `previous_digest` is that of entry `first_number - 1`; a caller that has it gets the first
    link checked too. Raises UntrustedInputError with reason `feed.equivocation`, `feed.number` or
    `feed.chain`.
    """
    types: dict[str, type[FeedEntry]] = {
        RoundPlan.payload_type(): RoundPlan,
        Abort.payload_type(): Abort,
    }
    entries: list[Verified[FeedEntry]] = []
    number, link_is_known = first_number, first_number == 1 or previous_digest is not None
    while True:
        reading = _judge_slot(bucket, feed_slot(number), types, keys, threshold=1)
        if isinstance(reading, Absent):
            return entries
        if isinstance(reading, Equivocation):
            raise _untrusted(
                f"feed entry {number}",
                "one record",
                f"{len(reading.digests)} signed by the coordinator",
                "feed.equivocation",
            )
        entry = reading.verified
        _check_feed_number(entry.record, number)
        if link_is_known and entry.record.previous_digest != previous_digest:
            raise _broken_link(f"feed entry {number}", previous_digest, "feed.chain")
        entries.append(entry)
        number, link_is_known, previous_digest = number + 1, True, entry.digest


def read_membership_chain(
    bucket: Bucket, pinned: Verified[Membership]
) -> list[Verified[Membership]]:
    """Membership versions from the pinned one to the newest, each vouched for by the one before.

    The Update Framework specification, section 5.3: consecutive numbers, each version
    signed by a threshold of its predecessor's root keys and of its own. An unusable successor
    raises UntrustedInputError instead of leaving the caller with an outdated member list. Expiry
    of the newest version is for the caller to check against its clock.
    """
    chain = [pinned]
    while (successor := _successor(bucket, chain[-1])) is not None:
        chain.append(successor)
    return chain


def read_statuses(
    bucket: Bucket, prefix: str, keys: Collection[str], limit: int
) -> Verified[Status] | None:
    """The newest valid status below `prefix` among the `limit` newest; for display only."""
    try:
        listed = bucket.list_keys(prefix)
    except BoundExceededError:
        return None
    for info in sorted(listed, key=lambda info: info.key, reverse=True)[:limit]:
        try:
            data = _bytes_of(bucket, info)
            status = verify(data, Status, keys)
        except UntrustedInputError:
            continue
        if info.key == f"{prefix}{status.record.number:06d}.json":
            return status
    return None


def _judge_slot(
    bucket: Bucket,
    slot: str,
    types: Mapping[str, type[RecordT]],
    keys: Collection[str],
    threshold: int,
    belongs: Callable[[RecordT], bool] | None = None,
) -> SlotReading[RecordT]:
    """Read each record key of `slot` and sort valid from rejected."""
    try:
        listed = [info for info in bucket.list_keys(slot) if _is_record_key(slot, info.key)]
    except BoundExceededError:
        return Absent(("slot.flooded",))
    valid: list[Verified[RecordT]] = []
    rejected: list[str] = []
    for info in sorted(listed, key=lambda info: info.key)[:MAX_SLOT_OBJECTS]:
        try:
            entry = _verified(_bytes_of(bucket, info), info.key, types, keys, threshold)
            if belongs is None or belongs(entry.record):
                valid.append(entry)
            else:
                rejected.append("slot.misplaced")
        except UntrustedInputError as error:
            rejected.append(error.reason)
    if not valid:
        return Absent(tuple(rejected))
    if len(valid) > 1:
        return Equivocation(tuple(sorted(entry.digest for entry in valid)))
    return Found(valid[0])


def _verified(
    data: bytes,
    key: str,
    types: Mapping[str, type[RecordT]],
    keys: Collection[str],
    threshold: int,
) -> Verified[RecordT]:
    if digest_of_bytes(data) != digest_in_key(key):
        raise _untrusted(key, "bytes with the digest in the key", "other bytes", "slot.digest")
    kind = peek_kind(data)
    if kind not in types:
        raise _untrusted(key, " or ".join(types), kind[:80], "envelope.kind")
    return verify(data, types[kind], keys, threshold)


def _bytes_of(bucket: Bucket, info: ObjectInfo) -> bytes:
    """The object's bytes; one that has grown or gone since the listing is its writer's doing."""
    bound = f"an object of at most {MAX_ENVELOPE_BYTES} bytes"
    if info.size > MAX_ENVELOPE_BYTES:
        raise _untrusted(info.key, bound, f"{info.size} bytes", "slot.size")
    try:
        data = bucket.get(info.key, MAX_ENVELOPE_BYTES)
    except BoundExceededError as error:
        raise _untrusted(info.key, bound, error.found, "slot.size") from None
    if data is None:
        raise _untrusted(info.key, bound, "none", "slot.gone")
    return data


def _is_record_key(slot: str, key: str) -> bool:
    digest = digest_in_key(key)
    return digest is not None and key == record_key(slot, digest)


def _check_feed_number(entry: FeedEntry, number: int) -> None:
    if entry.feed_number != number:
        raise _untrusted(
            f"feed entry {number}", f"feed number {number}", f"{entry.feed_number}", "feed.number"
        )


def _successor(bucket: Bucket, current: Verified[Membership]) -> Verified[Membership] | None:
    roots, number = current.record, current.record.number + 1
    problem = f"membership {number}"
    reading = read_slot(
        bucket, membership_slot(number), Membership, roots.root_keys, roots.root_threshold
    )
    if reading == Absent():
        return None
    if not isinstance(reading, Found):
        found = (
            f"rejected: {', '.join(reading.rejected)}"
            if isinstance(reading, Absent)
            else f"{len(reading.digests)} valid versions"
        )
        raise _untrusted(problem, "one version that the root keys signed", found, "membership.slot")
    new = reading.verified.record
    if new.federation != roots.federation:
        raise _untrusted(problem, roots.federation, new.federation, "membership.federation")
    if new.number != number:
        raise _untrusted(problem, f"number {number}", f"{new.number}", "membership.number")
    if new.previous_digest != current.digest:
        raise _broken_link(problem, current.digest, "membership.chain")
    return verify(reading.verified.envelope, Membership, new.root_keys, new.root_threshold)


def _broken_link(problem: str, expected: str | None, reason: str) -> UntrustedInputError:
    return _untrusted(problem, f"previous_digest {expected}", "another previous_digest", reason)


def _untrusted(problem: str, expected: str, found: str, reason: str) -> UntrustedInputError:
    return UntrustedInputError(
        problem,
        expected=expected,
        found=found,
        action="do not act on it; ask its signer, over another channel, what happened",
        reason=reason,
    )
