"""What keeps the evidence that a decision rests on, before the record that names it is signed.

The inbox is the ledger: what was judged is a version in its silo's inbox, and that version is
locked there and read back. Whatever the silo puts later is another version, and nothing is stored
twice. Where a storage has no versions or locks (`ledger.place = "copy"` in `federation.toml`), the
bytes that were judged are put into the coordinator's own ledger bucket instead.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from aggregator.attempt import SiloRecords
from aggregator.coordinator import Coordinator
from aggregator.decisions.interruption import ERASED
from aggregator.evidence.opening import submitted_blob
from aggregator.evidence.spool import own_blob, spool_blob, spool_path
from aggregator.evidence.transfers import several_at_a_time
from data_contracts.errors import (
    FederationOperatorError,
    StorageError,
    UntrustedInputError,
    UnusableMergeError,
)
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.bucket_layout import (
    RoundId,
    attempt_of,
    attempt_of_record,
    blob_key,
    ledger_slot,
    record_key,
    round_slot,
)
from data_contracts.protocol.envelope import (
    Verified,
    max_document_bytes,
    unverified_record,
    verify,
)
from data_contracts.protocol.records import RECORD_TYPES, Close, RoundPlan, Submission
from data_contracts.protocol.records.close import Admitted
from data_contracts.protocol.records.evidence_ref import LOCAL_ADAPTER, EvidenceRef
from infra.storage.object_store import (
    AccessDeniedError,
    BoundExceededError,
    Bucket,
    Lock,
    VersionGoneError,
)

_LOG = logging.getLogger(__name__)


class ErasedAdapterError(UnusableMergeError):
    """What was admitted is not there any more: its lock has ended, or a person erased it."""

    rule = ERASED


@dataclass(frozen=True)
class Exhibit:
    """One thing to keep: its reference, and the envelope or the blob that was judged, as it lies
    in storage where it is encrypted.

    A reference without a version is to whatever lies in its place now, if it is that.
    """

    ref: EvidenceRef
    content: bytes | ArtifactRef
    is_ciphertext: bool = False

    @property
    def silo(self) -> str:
        """Whose it is; raises ValueError for the coordinator's, which is not kept here."""
        if self.ref.silo is None:
            raise ValueError(f"expected a silo's {self.ref.kind}, found the coordinator's")
        return self.ref.silo


def keep(
    c: Coordinator, plan: Verified[RoundPlan], exhibits: Iterable[Exhibit]
) -> list[EvidenceRef]:
    """Lock or copy each; returns references to all that is kept, with the versions locked.

    Left out is what its silo has taken away. Raises StorageError where the storage keeps no locks,
    and AccessDeniedError where the coordinator may not set them.
    """
    how = _lock if c.settings.ledger.place == "inbox" else _copy
    found = several_at_a_time(partial(how, c, plan), list(exhibits))
    return [ref for ref in found if ref is not None]


def held_records(
    c: Coordinator, plan: Verified[RoundPlan], refs: Iterable[EvidenceRef], keys: Mapping[str, str]
) -> dict[str, SiloRecords]:
    """The silos' records that `refs` name, as they are kept; `keys` are the plan's, by silo.

    Missing is what was removed in spite of that: once its lock has ended, or by a person who may.
    """
    found: dict[str, list[tuple[Verified[Any], str | None]]] = {}
    for ref in refs:
        record_type = RECORD_TYPES.get(ref.kind)
        if record_type is None or ref.silo is None or ref.silo not in keys:
            continue
        is_copy = ref.version is None
        key = _ledger_key(plan, ref.silo, ref) if is_copy else _inbox_key(plan, ref)
        limit = max_document_bytes(record_type)
        data = c.seen.read_version(_bucket(c, ref), key, ref.version, limit)
        if data is not None:
            verified = verify(data, record_type, {keys[ref.silo]})
            found.setdefault(ref.silo, []).append((verified, ref.version))
    return {silo: SiloRecords.found(silo, records) for silo, records in found.items()}


def spool_admitted(c: Coordinator, plan: RoundPlan, close: Close) -> list[Path]:
    """The admitted adapters as they are kept, on local disk, in the order of `close.admitted`.

    Whole objects, because small ranged reads are slow. Raises ErasedAdapterError where one is gone.
    """
    held = {ref.silo: ref for ref in close.held if ref.kind == LOCAL_ADAPTER}

    def fetch(admitted: Admitted) -> Path:
        silo, ref = admitted.silo, held[admitted.silo]
        try:
            if plan.encryption is None:
                blob = own_blob(c, admitted.adapter)
            else:
                blob = submitted_blob(c, plan, _held_submission(c, close, admitted))
            return spool_blob(c, _bucket(c, ref), blob, ref.version)
        except UntrustedInputError as error:
            raise ErasedAdapterError(
                f"adapter of {silo}",
                expected="the bytes that the close holds",
                found=error.found,
                action="go on without it: the round is tried again, contributions are not measured",
            ) from None

    return several_at_a_time(fetch, close.admitted)


def _held_submission(c: Coordinator, close: Close, admitted: Admitted) -> Submission:
    """As it is kept; its digest is the one that the coordinator signed."""
    named = (ref for ref in close.held if ref.digest == admitted.submission_digest)
    ref = next(ref for ref in named if ref.silo == admitted.silo)
    slot = _slot_of(attempt_of_record(close), admitted.silo, ref)
    limit = max_document_bytes(Submission)
    key = record_key(slot, ref.digest)
    data = c.seen.read_version(_bucket(c, ref), key, ref.version, limit)
    if data is None:
        raise UntrustedInputError(
            f"submission of {admitted.silo}",
            expected="the record that the close holds",
            found="none",
            action="bring the version back, if it was not erased on purpose",
            rule="blob.missing",
        )
    return unverified_record(data, Submission)


def _slot_of(attempt: RoundId, silo: str, ref: EvidenceRef) -> str:
    """Of a silo's record, in its inbox or among the copies."""
    if ref.version is None:
        return ledger_slot(attempt, silo, ref.kind)
    return round_slot(attempt, ref.kind)


def _bucket(c: Coordinator, ref: EvidenceRef) -> Bucket:
    """A silo's inbox has the versions, the ledger bucket the copies."""
    return c.ledger if ref.version is None or ref.silo is None else c.inbox(ref.silo)


def _inbox_key(plan: Verified[RoundPlan], ref: EvidenceRef) -> str:
    if ref.kind == LOCAL_ADAPTER:
        return blob_key(ref.digest)
    return record_key(round_slot(attempt_of(plan), ref.kind), ref.digest)


def _ledger_key(plan: Verified[RoundPlan], silo: str, ref: EvidenceRef) -> str:
    return record_key(ledger_slot(attempt_of(plan), silo, ref.kind), ref.digest)


def _fetched(c: Coordinator, exhibit: Exhibit, stored: ArtifactRef) -> bool:
    """Whether a ciphertext is on this disk as it lies in its inbox: what was kept is what it holds.

    It is under its own digest, which the silo signed, so it is what was judged.
    """
    try:
        c.inbox(exhibit.silo).download_blob(stored, spool_path(c, stored), exhibit.ref.version)
    except UntrustedInputError:
        return False
    return True


def _copy(c: Coordinator, plan: Verified[RoundPlan], exhibit: Exhibit) -> EvidenceRef | None:
    """The very bytes that were judged: meanwhile the silo could have put others in their place."""
    if isinstance(exhibit.content, ArtifactRef):
        if exhibit.is_ciphertext and not _fetched(c, exhibit, exhibit.content):
            return None
        c.ledger.put_blob(spool_path(c, exhibit.content), exhibit.content)
    else:
        key = _ledger_key(plan, exhibit.silo, exhibit.ref)
        c.ledger.put_once(key, exhibit.content)
    return exhibit.ref.model_copy(update={"version": None})


def _lock(c: Coordinator, plan: Verified[RoundPlan], exhibit: Exhibit) -> EvidenceRef | None:
    """Lock the version that was judged, and read back the lock and a record's bytes; None where it
    is gone. An adapter was hashed from that very version, whose bytes do not change.
    """
    inbox, key = c.inbox(exhibit.silo), _inbox_key(plan, exhibit.ref)
    version = exhibit.ref.version
    if version is None:
        # Read before the bucket had versions: then what is there now has to be that, before a lock.
        version = _newest_version(inbox, key)
        if version is None or not _holds(inbox, key, version, exhibit.content):
            return None
    if not _is_locked(c, inbox, key, version, plan):
        return None
    if isinstance(exhibit.content, bytes) and not _holds(inbox, key, version, exhibit.content):
        return None
    return exhibit.ref.model_copy(update={"version": version})


def _wanted_lock(c: Coordinator, plan: Verified[RoundPlan]) -> Lock:
    """The same for every try before `evaluate_by`, so that a retry shortens nothing."""
    retention = plan.record.retention
    start = max(plan.record.evaluate_by, c.clock.now())
    until = start.replace(microsecond=0) + timedelta(days=retention.days)
    return Lock(retention.mode, until)


def _newest_version(inbox: Bucket, key: str) -> str | None:
    """What lies there now; None when there is nothing."""
    found = inbox.stat(key)
    if found is not None and found.version is None:
        raise FederationOperatorError(
            f"inbox {inbox.name}",
            expected="a bucket with versions and Object Lock",
            found=f"{key} without a version",
            action="let the storage's operator turn both on, or set place to copy under [ledger] "
            "in federation.toml",
        )
    return None if found is None else found.version


def _is_locked(
    c: Coordinator, inbox: Bucket, key: str, version: str, plan: Verified[RoundPlan]
) -> bool:
    """Whether the version is under a lock that outlives the attempt; False when it is gone.

    A lock that it has already and that cannot be replaced, of an earlier attempt under other
    settings, stays as it is: for that no silo is left out. Raises StorageError where there should
    be a lock and is none.
    """
    denied: AccessDeniedError | None = None
    wanted = _wanted_lock(c, plan)
    try:
        inbox.retain(key, version, wanted)
    except VersionGoneError:
        return False
    except AccessDeniedError as error:
        denied = error
    found = inbox.stat(key, version)
    if found is None:
        return False
    if found.lock is not None and found.lock.covers(wanted):
        return True
    if denied is not None and found.lock is not None:
        kept = f"{found.lock.mode} until {found.lock.until:%Y-%m-%d}"
        _LOG.warning("%s/%s stays locked as it is: %s", inbox.name, key, kept)
        return found.lock.until > max(plan.record.evaluate_by, c.clock.now())
    raise denied or StorageError(
        f"{inbox.name}/{key}",
        expected=f"version {version} locked in {wanted.mode} mode until {wanted.until:%Y-%m-%d}",
        found="no lock" if found.lock is None else f"{found.lock.mode} until {found.lock.until}",
        action="use a storage that keeps Object Lock, or set place to copy under [ledger] in "
        "federation.toml",
    )


def _holds(inbox: Bucket, key: str, version: str, content: bytes | ArtifactRef) -> bool:
    """Whether the bytes that were judged are what the version has, read to their end."""
    try:
        if isinstance(content, ArtifactRef):
            inbox.verify_blob(content, version)
            return True
        stored = inbox.read(key, max(len(content), 1), version)
        return stored is not None and stored.data == content
    except (UntrustedInputError, BoundExceededError):
        return False
