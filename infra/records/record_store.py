"""Records in buckets: written once, found by listing their slot, believed only when verified.

Guaranteed to callers: a record counts only if its bytes hash to the digest in its key and pass
`envelope.verify`; a slot with two different valid records is never resolved by choosing one; the
work per slot is bounded whatever its writer puts there. Whether a record belongs to the round or
silo that the caller had in mind is for the caller to judge.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from data_contracts.errors import UntrustedInputError, contradiction
from data_contracts.protocol.bucket_layout import (
    RoundId,
    digest_in_key,
    record_key,
    round_prefix,
    round_slot,
)
from data_contracts.protocol.envelope import Verified, max_document_bytes, verify
from data_contracts.protocol.payload import NEWER
from data_contracts.protocol.records import RoundRecord
from data_contracts.protocol.records.base import RecordT
from infra.records.documents import stored_document
from infra.records.seen import SeenEnvelopes
from infra.storage.object_store import BoundExceededError, Bucket, ObjectInfo, StoredObject

MAX_SLOT_OBJECTS = 64

RoundRecordT = TypeVar("RoundRecordT", bound=RoundRecord)


@dataclass(frozen=True)
class Absent:
    """No valid record; `rejected` says why for each object that looked like one."""

    rejected: tuple[str, ...] = ()


FLOODED = Absent(("slot.flooded",))


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
    try:
        listed = bucket.list_keys(slot)
    except BoundExceededError:
        return FLOODED
    max_bytes = max_document_bytes(record_type)

    def judged(info: ObjectInfo) -> Found[RecordT]:
        stored = stored_document(bucket, info, max_bytes)
        verified = verify(stored.data, record_type, keys)
        return _counting(stored, verified, belongs is None or belongs(verified.record))

    return _sorted_out(_in_slot(slot, listed), judged)


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
    seen: SeenEnvelopes,
    named: Collection[str] = (),
) -> "AttemptReading":
    """The records of one attempt, each type with the keys that may sign it, from one listing.

    Only those on this very plan for which `counts` is true are in their slots; see `read_slot`.
    Where a slot is flooded, those `named` by digest are looked at first.
    """
    try:
        listed = bucket.list_keys(round_prefix(round_id))
    except BoundExceededError:
        return AttemptReading(dict.fromkeys(wanted, FLOODED))

    def judged(info: ObjectInfo, record_type: type[RoundRecord]) -> Found[RoundRecord]:
        stored = seen.read(bucket, info, max_document_bytes(record_type))
        verified = verify(stored.data, record_type, wanted[record_type])
        is_here = verified.record.plan_digest == round_id.plan_digest and counts(verified)
        return _counting(stored, verified, is_here)

    readings: dict[type[RoundRecord], SlotReading[Any]] = {}
    for record_type in wanted:
        infos = _in_slot(round_slot(round_id, record_type.kind), listed, named)
        readings[record_type] = _sorted_out(infos, partial(judged, record_type=record_type))
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


def _in_slot(
    slot: str, listed: Iterable[ObjectInfo], named: Collection[str] = ()
) -> list[ObjectInfo]:
    """The record keys of a slot in the order in which they are looked at, no more than count."""
    found = []
    for info in listed:
        digest = digest_in_key(info.key)
        if digest is not None and info.key == record_key(slot, digest):
            found.append((digest not in named, info.key, info))
    return [info for _, _, info in sorted(found, key=lambda entry: entry[:2])][:MAX_SLOT_OBJECTS]


def _counting(stored: StoredObject, verified: Verified[RecordT], is_here: bool) -> Found[RecordT]:
    if not is_here:
        raise contradiction("record", "one of this slot", "one of another", "slot.misplaced")
    return Found(verified, stored.version)


def _sorted_out(
    infos: Iterable[ObjectInfo], judged: Callable[[ObjectInfo], Found[RecordT]]
) -> SlotReading[RecordT]:
    """Read each record key of a slot and sort valid from rejected."""
    valid: list[Found[RecordT]] = []
    rejected: list[str] = []
    for info in infos:
        try:
            valid.append(judged(info))
        except UntrustedInputError as error:
            rejected.append(error.rule)
    if not valid:
        return Absent(tuple(rejected))
    if len(valid) > 1:
        return Equivocation(tuple(sorted(found.verified.digest for found in valid)))
    return valid[0]
