"""Records in buckets: written once, found by listing their slot, believed only when verified.

Guaranteed to callers: a record counts only if its bytes hash to the digest in its key and pass
`envelope.verify`; a slot with two different valid records is never resolved by choosing one; the
work per slot is bounded whatever its writer puts there. Whether a record belongs to the round or
silo that the caller had in mind is for the caller to judge.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Generic, TypeVar

from data_contracts.errors import UntrustedInputError, contradiction
from data_contracts.protocol.bucket_layout import (
    RoundId,
    digest_in_key,
    record_key,
    round_prefix,
    round_slot,
)
from data_contracts.protocol.envelope import (
    Quorum,
    Verified,
    claims_kind,
    document_digest,
    max_document_bytes,
    peek_kind,
    verify,
    verify_quorums,
)
from data_contracts.protocol.payload import NEWER
from data_contracts.protocol.records import Record, RoundRecord, Status
from infra.storage.object_store import (
    UNREADABLE,
    BoundExceededError,
    Bucket,
    ObjectInfo,
    StoredObject,
    is_unreadable_alone,
)

MAX_SLOT_OBJECTS = 64
SEEN_BYTES = 64 * 1024 * 1024
STATUSES_TRIED = 3

RecordT = TypeVar("RecordT", bound=Record)
RoundRecordT = TypeVar("RoundRecordT", bound=RoundRecord)


@dataclass(frozen=True)
class Absent:
    """No valid record; `rejected` says why for each object that looked like one."""

    rejected: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found(Generic[RecordT]):
    """Exactly one valid record; `version` is the one that was read, where the bucket has them."""

    verified: Verified[RecordT]
    version: str | None = None


@dataclass(frozen=True)
class Equivocation:
    """Two or more valid records that differ, by envelope digest, sorted."""

    digests: tuple[str, ...]


SlotReading = Absent | Found[RecordT] | Equivocation


def write_record(bucket: Bucket, slot: str, verified: Verified[Any]) -> None:
    """Create the record in `slot` under its digest; the same record again is success."""
    bucket.put_once(record_key(slot, verified.digest), verified.envelope)


def read_slot(
    bucket: Bucket,
    slot: str,
    record_type: type[RecordT],
    keys: Collection[str],
    belongs: Callable[[RecordT], bool] | None = None,
) -> SlotReading[RecordT]:
    """What `slot` holds; of more than MAX_SLOT_OBJECTS records the first in key order count.

    A record for which `belongs` is false, say a genuine one of another round that somebody copied
    here, does not count as being in the slot, so that nobody can be framed with it.
    """
    types = {record_type.payload_type(): record_type}
    try:
        listed = [info for info in bucket.list_keys(slot) if _is_record_key(slot, info.key)]
    except BoundExceededError:
        return Absent(("slot.flooded",))
    return _judge_slot(
        listed,
        partial(stored_document, bucket),
        types,
        Quorum(frozenset(keys)),
        lambda verified: belongs is None or belongs(verified.record),
    )


def read_record(
    bucket: Bucket,
    round_id: RoundId,
    record_type: type[RoundRecordT],
    keys: Collection[str],
    silo: str | None = None,
    belongs: Callable[[RoundRecordT], bool] | None = None,
) -> SlotReading[RoundRecordT]:
    """The record of one kind on a plan, of a silo where one is named; see `read_slot`."""

    def is_here(record: RoundRecordT) -> bool:
        fits = belongs is None or belongs(record)
        owner = getattr(record, "silo", None)
        return fits and record.plan_digest == round_id.plan_digest and owner == silo

    slot = round_slot(round_id, record_type.kind)
    return read_slot(bucket, slot, record_type, keys, is_here)


def read_records(
    bucket: Bucket,
    round_id: RoundId,
    wanted: Mapping[type[RoundRecord], Collection[str]],
    counts: Callable[[Verified[RoundRecord]], bool],
    seen: "SeenEnvelopes",
    named: Collection[str] = (),
) -> "AttemptReading":
    """The records of one attempt, each type with the keys that may sign it, from one listing.

    Only those on this very plan for which `counts` is true are in their slots; see `read_slot`.
    Where a slot is flooded, those `named` by digest are looked at first.
    """
    prefix = round_prefix(round_id)
    try:
        listed = bucket.list_keys(prefix)
    except BoundExceededError:
        return AttemptReading({record_type: Absent(("slot.flooded",)) for record_type in wanted})
    readings: dict[type[RoundRecord], SlotReading[Any]] = {}
    for record_type, keys in wanted.items():
        slot = round_slot(round_id, record_type.kind)
        readings[record_type] = _judge_slot(
            [info for info in listed if _is_record_key(slot, info.key)],
            partial(seen.read, bucket),
            {record_type.payload_type(): record_type},
            Quorum(frozenset(keys)),
            lambda v: v.record.plan_digest == round_id.plan_digest and counts(v),
            named,
        )
    return AttemptReading(readings)


@dataclass(frozen=True)
class AttemptReading:
    """What `read_records` found, by type."""

    readings: Mapping[type[RoundRecord], SlotReading[Any]]

    def found(self, record_type: type[RoundRecordT]) -> Verified[RoundRecordT] | None:
        """The one valid record of a type, or None."""
        reading = self.readings[record_type]
        return reading.verified if isinstance(reading, Found) else None

    def version(self, record_type: type[RoundRecord]) -> str | None:
        """The version of the one valid record of a type."""
        reading = self.readings[record_type]
        return reading.version if isinstance(reading, Found) else None

    @property
    def is_newer(self) -> bool:
        """Whether a later release has signed something here, which this one cannot read."""
        readings = self.readings.values()
        return any(isinstance(r, Absent) and NEWER in r.rejected for r in readings)

    def equivocations(self) -> list[tuple[type[RoundRecord], Equivocation]]:
        """Types of which there are two valid records or more."""
        items = self.readings.items()
        return [(kind, found) for kind, found in items if isinstance(found, Equivocation)]


class SeenEnvelopes:
    """Envelopes that this process has read, so that a poll reads what is new.

    A key ends in the digest of what it holds, and only what matches is kept: nothing here ages.
    """

    def __init__(self, max_bytes: int = SEEN_BYTES) -> None:
        self._kept: dict[tuple[str, str], StoredObject] = {}
        self._lock = Lock()
        self._free = max_bytes

    def read(self, bucket: Bucket, info: ObjectInfo, max_bytes: int) -> StoredObject:
        """The document of a listed record key; raises UntrustedInputError for other bytes."""
        known = self._known(bucket, info.key)
        return known or self._keep(bucket, info.key, stored_document(bucket, info, max_bytes))

    def read_version(
        self, bucket: Bucket, key: str, version: str | None, max_bytes: int
    ) -> bytes | None:
        """The document of a record key as one version has it, the newest if that is None.

        None where there is no such version, or where its bytes are not those of the key.
        """
        known = self._known(bucket, key)
        if known is not None:
            return known.data
        try:
            found = bucket.read(key, max_bytes, version)
        except BoundExceededError:
            return None
        if found is None or not _is_named(found.data, key):
            return None
        return self._keep(bucket, key, found).data

    def _known(self, bucket: Bucket, key: str) -> StoredObject | None:
        with self._lock:
            return self._kept.get((bucket.name, key))

    def _keep(self, bucket: Bucket, key: str, found: StoredObject) -> StoredObject:
        place = (bucket.name, key)
        with self._lock:
            if place not in self._kept:
                self._kept[place] = found
                self._free -= len(found.data)
            while self._free < 0:
                self._free += len(self._kept.pop(next(iter(self._kept))).data)
        return found


class SeenStatuses:
    """The newest valid status of each silo, for display only; a poll reads on from the last one."""

    def __init__(self, limit: int = STATUSES_TRIED) -> None:
        self._limit = limit
        self._newest: dict[tuple[str, str], tuple[str, Verified[Status]]] = {}

    def read(self, bucket: Bucket, prefix: str, keys: Collection[str]) -> Verified[Status] | None:
        """The newest below `prefix` among the `limit` newest that were not seen before."""
        place = (bucket.name, prefix)
        last, known = self._newest.get(place, ("", None))
        try:
            listed = bucket.list_keys(prefix, after=last)
        except BoundExceededError:
            return known
        for info in sorted(listed, key=lambda info: info.key, reverse=True)[: self._limit]:
            try:
                found = _stored(bucket, info, max_document_bytes(Status))
                status = verify(found.data, Status, keys)
            except UntrustedInputError:
                continue
            if info.key == f"{prefix}{status.record.number:06d}.json":
                self._newest[place] = (info.key, status)
                return status
        return known


def document_in(bucket: Bucket, info: ObjectInfo, max_bytes: int) -> bytes:
    """Bytes of a listed record key; raises UntrustedInputError unless its digest is theirs."""
    return stored_document(bucket, info, max_bytes).data


def stored_document(bucket: Bucket, info: ObjectInfo, max_bytes: int) -> StoredObject:
    """As `document_in`, with the version that was read."""
    found = _stored(bucket, info, max_bytes)
    if not _is_named(found.data, info.key):
        raise contradiction(
            info.key, "bytes with the digest in the key", "other bytes", "slot.digest"
        )
    return found


def _is_named(document: bytes, key: str) -> bool:
    try:
        return document_digest(document) == digest_in_key(key)
    except UntrustedInputError:
        return False


def _judge_slot(
    listed: Collection[ObjectInfo],
    read: Callable[[ObjectInfo, int], StoredObject],
    types: Mapping[str, type[RecordT]],
    quorum: Quorum,
    counts: Callable[[Verified[RecordT]], bool],
    named: Collection[str] = (),
) -> SlotReading[RecordT]:
    """Read each record key of a slot and sort valid from rejected."""
    max_bytes = max(max_document_bytes(record_type) for record_type in types.values())
    valid: list[Found[RecordT]] = []
    rejected: list[str] = []
    order = sorted(listed, key=lambda info: (digest_in_key(info.key) not in named, info.key))
    for info in order[:MAX_SLOT_OBJECTS]:
        try:
            stored = read(info, max_bytes)
            entry = _verified(stored.data, types, quorum)
            if counts(entry):
                valid.append(Found(entry, stored.version))
            else:
                rejected.append("slot.misplaced")
        except UntrustedInputError as error:
            rejected.append(error.rule)
    if not valid:
        return Absent(tuple(rejected))
    if len(valid) > 1:
        return Equivocation(tuple(sorted(found.verified.digest for found in valid)))
    return valid[0]


def _verified(data: bytes, types: Mapping[str, type[RecordT]], quorum: Quorum) -> Verified[RecordT]:
    record_type = next((kind for kind in types.values() if claims_kind(data, kind)), None)
    if record_type is None:
        found = ascii(peek_kind(data))[:80]
        raise contradiction("record", " or ".join(types), found, "envelope.kind")
    return verify_quorums(data, record_type, [quorum])


def _stored(bucket: Bucket, info: ObjectInfo, max_bytes: int) -> StoredObject:
    """The object; one that has grown or gone since the listing is its writer's doing."""
    bound = f"an object of at most {max_bytes} bytes"
    if info.size > max_bytes:
        raise contradiction(info.key, bound, f"{info.size} bytes", "slot.size")
    try:
        found = bucket.read(info.key, max_bytes)
    except BoundExceededError as error:
        raise contradiction(info.key, bound, error.found, "slot.size") from None
    except UNREADABLE as error:
        if not is_unreadable_alone(bucket, info.key):
            raise
        raise contradiction(
            info.key, "one that can be read", error.found, "slot.unreadable"
        ) from None
    if found is None:
        raise contradiction(info.key, bound, "none", "slot.gone")
    return found


def _is_record_key(slot: str, key: str) -> bool:
    digest = digest_in_key(key)
    return digest is not None and key == record_key(slot, digest)
