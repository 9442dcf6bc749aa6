"""One winner per slot for the coordinator's own records.

Record keys end in a digest, so two coordinators (or one that was killed and started again, with a
later `issued_at`) could put two valid records into one slot, which readers must treat as
equivocation. So the coordinator first creates one fixed key in the slot that holds the envelope;
whoever comes second reads it and adopts that record instead of its own.
"""

from collections.abc import Collection, Sequence
from typing import TypeVar

from data_contracts.bucket_layout import record_key
from data_contracts.envelope import MAX_ENVELOPE_BYTES, Verified, peek_kind, verify
from data_contracts.errors import StorageError, UntrustedInputError
from data_contracts.records import Record
from infra.object_store import Bucket

RecordT = TypeVar("RecordT", bound=Record)

CLAIM_NAME = "claim"


def claim_record(
    bucket: Bucket, slot: str, proposed: Verified[RecordT], keys: Collection[str]
) -> Verified[RecordT]:
    """Put `proposed` into `slot` unless a record was claimed there before; return the winner."""
    winner = _claimed(bucket, slot, proposed, keys)
    bucket.put_once(record_key(slot, winner.digest), winner.envelope)
    return winner


def finish_claim(
    bucket: Bucket, slot: str, record_types: Sequence[type[Record]], keys: Collection[str]
) -> bool:
    """Complete a claim whose writer was killed before the record itself; False if there is none."""
    envelope = bucket.get(f"{slot}{CLAIM_NAME}", MAX_ENVELOPE_BYTES)
    if envelope is None:
        return False
    claimed_type = peek_kind(envelope)
    for record_type in record_types:
        if record_type.payload_type() == claimed_type:
            verified = verify(envelope, record_type, keys)
            bucket.put_once(record_key(slot, verified.digest), envelope)
            return True
    raise UntrustedInputError(
        f"claim in {slot}",
        expected=" or ".join(record_type.kind for record_type in record_types),
        found=claimed_type,
        action="find out who else writes with the coordinator's credential",
        reason="claim.kind",
    )


def _claimed(
    bucket: Bucket, slot: str, proposed: Verified[RecordT], keys: Collection[str]
) -> Verified[RecordT]:
    claim_key = f"{slot}{CLAIM_NAME}"
    existing = bucket.get(claim_key, MAX_ENVELOPE_BYTES)
    if existing is None:
        try:
            bucket.put_once(claim_key, proposed.envelope)
            return proposed
        except StorageError:
            existing = bucket.get(claim_key, MAX_ENVELOPE_BYTES)
            if existing is None:
                raise
    return verify(existing, type(proposed.record), keys)
