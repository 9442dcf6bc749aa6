"""One winner per slot for the coordinator's own records.

Record keys end in a digest, so two coordinators (or one that was killed and started again, with a
later `issued_at`) could put two valid records into one slot, which readers must treat as
equivocation. So the coordinator first creates a fixed key in the slot that holds the envelope;
whoever comes second reads it and adopts that record instead of its own.

Claims are numbered, and the first that counts is the winner. What counts is the same for everybody,
so a claim of a key that was revoked, or of a plan that a new membership made void, is passed over
by all. In the slots that everybody shares, claims also name the membership that governs (`epoch`):
whoever could write there before a new one was signed has not written to its claims.
"""

from collections.abc import Callable

from data_contracts.errors import StorageError, UntrustedInputError
from data_contracts.protocol.bucket_layout import record_key
from data_contracts.protocol.dsse import MAX_ENVELOPE_BYTES
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.payload import MAX_TABLE_BYTES
from data_contracts.protocol.records.base import RecordT
from infra.storage.object_store import BoundExceededError, Bucket

Counts = Callable[[bytes], Verified[RecordT]]
"""The record of an envelope; raises UntrustedInputError for one that does not count in the slot."""

MAX_CLAIMS = 64
EPOCH_DIGITS = 16


def claim_key(slot: str, number: int, epoch: str = "") -> str:
    """Key of a slot's claim, from 1; `epoch` is the digest of the membership that governs."""
    return f"{slot}claim-{epoch[:EPOCH_DIGITS]}{'-' if epoch else ''}{number:02d}"


def claim_record(
    bucket: Bucket,
    slot: str,
    proposed: Verified[RecordT],
    counts: Counts[RecordT],
    epoch: str = "",
) -> Verified[RecordT]:
    """Put `proposed` into `slot` unless a record was claimed there before; return the winner.

    Raises UntrustedInputError when `proposed` itself would not count there.
    """
    counts(proposed.envelope)
    winner, free = _first_counting(bucket, slot, counts, epoch)
    while winner is None:
        try:
            bucket.put_once(free, proposed.envelope)
            winner = proposed
        except StorageError:
            if _read(bucket, free) is None:
                raise
            winner, free = _first_counting(bucket, slot, counts, epoch)
    bucket.put_once(record_key(slot, winner.digest), winner.envelope)
    return winner


def finish_claim(
    bucket: Bucket, slot: str, counts: Counts[RecordT], epoch: str = ""
) -> Verified[RecordT] | None:
    """Complete a claim whose writer was killed before the record itself; None if there is none."""
    winner = claimed_record(bucket, slot, counts, epoch)
    if winner is not None:
        bucket.put_once(record_key(slot, winner.digest), winner.envelope)
    return winner


def claimed_record(
    bucket: Bucket, slot: str, counts: Counts[RecordT], epoch: str = ""
) -> Verified[RecordT] | None:
    """The record that was claimed for a slot, written or not; None where there is no claim."""
    winner, _ = _first_counting(bucket, slot, counts, epoch)
    return winner


def _first_counting(
    bucket: Bucket, slot: str, counts: Counts[RecordT], epoch: str
) -> tuple[Verified[RecordT] | None, str]:
    """The first claim that counts, or else the key of the first that nobody has made."""
    for number in range(1, MAX_CLAIMS + 1):
        key = claim_key(slot, number, epoch)
        claimed = _read(bucket, key)
        if claimed is None:
            return None, key
        try:
            return counts(claimed), key
        except UntrustedInputError:
            continue
    raise StorageError(
        f"{bucket.name}/{slot}",
        expected=f"one of {MAX_CLAIMS} claims that counts, or a free one",
        found="others",
        action="find out who writes with the coordinator's credential, and replace it",
    )


def _read(bucket: Bucket, key: str) -> bytes | None:
    """A claim that is too large for a record is one that does not count."""
    try:
        return bucket.get(key, MAX_ENVELOPE_BYTES + MAX_TABLE_BYTES)
    except BoundExceededError:
        return b""
