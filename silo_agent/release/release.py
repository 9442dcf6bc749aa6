"""The only way out of the silo.

Guaranteed for everything that leaves: the kill switch was off, the record was signed by the silo's
key, a submission rests on a passing verdict on the contract in force, and the bytes were first
written to the local outbox and synced, blob before record. A retry sends those very bytes. Nothing
else in this package holds the inbox for writing.
"""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from data_contracts.protocol.bucket_layout import (
    RoundId,
    attempt_of_record,
    blob_key,
    round_slot,
    run_round_prefix,
    status_key,
)
from data_contracts.protocol.envelope import Verified, seal, verify
from data_contracts.protocol.records import (
    Acceptance,
    CoalitionLosses,
    Evaluation,
    Refusal,
    RoundPlan,
    SiloRecord,
    Status,
    Submission,
    Verdict,
)
from infra.clock import Clock
from infra.disk.durable_files import keep_durably, write_durably
from infra.records.newest_records import newest_records
from infra.records.record_store import Equivocation, Found, SlotReading, read_slot, write_record
from infra.signing_keys import SigningKey
from infra.storage.object_store import Bucket
from infra.terminal import command_line
from silo_agent.gate.contract_terms import ContractTerms
from silo_agent.release.doors import objection

log = logging.getLogger("silo-agent")

SiloRecordT = TypeVar("SiloRecordT", bound=SiloRecord)

OUTBOX = "outbox"
"""Directory of the silo's home for everything that leaves."""

RELEASED_TYPES: tuple[type[SiloRecord], ...] = (
    Acceptance,
    Refusal,
    Verdict,
    Submission,
    Evaluation,
    CoalitionLosses,
)


class ReleaseForbiddenError(SiloOperatorError):
    """The kill switch is on, or what should leave does not rest on a passing verdict."""


@dataclass(frozen=True)
class Grounds:
    """What a submission rests on: the adapter's file, the plan, the contract as it is now."""

    adapter: Path
    plan: Verified[RoundPlan]
    contract: ContractTerms | None


@dataclass(frozen=True)
class Released:
    """What this silo has released, or is about to release again, in one attempt."""

    acceptance: Verified[Acceptance] | None
    refusal: Verified[Refusal] | None
    verdict: Verified[Verdict] | None
    submission: Verified[Submission] | None
    evaluation: Verified[Evaluation] | None
    coalition_losses: Verified[CoalitionLosses] | None


class Release:
    """Outbox on local disk in front of the silo's inbox in storage."""

    def __init__(
        self,
        directory: Path,
        inbox: Bucket,
        key: SigningKey,
        clock: Clock,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._directory = directory
        self._inbox = inbox
        self._key = key
        self._clock = clock
        self._is_stopped = is_stopped

    @property
    def public_key(self) -> str:
        """Public key (hex) that everything here is signed with."""
        return self._key.public_key_hex

    def record(
        self,
        record: SiloRecordT,
        grounds: Grounds | None = None,
    ) -> Verified[SiloRecordT]:
        """Release a record; a submission needs its grounds.

        If this kind was released before in this attempt, those bytes are sent again instead.
        """
        round_id = attempt_of_record(record)
        earlier = self._read(round_id, type(record))
        if earlier is None:
            self._require_running(record.kind)
            if isinstance(record, Submission):
                self._keep_blob(self._permitted(record, grounds), record.adapter)
            earlier = seal(record, self._key)
            write_durably(self._path(round_id, record.kind), earlier.envelope)
        self._send(round_id, earlier)
        return earlier

    def deliver_pending(self, round_id: RoundId) -> None:
        """Send again what was written to the outbox but not confirmed by storage.

        Whoever calls this has asked the doors of what is `unsent` again.
        """
        unsent = self.unsent(round_id)
        for record_type in (kind for kind in RELEASED_TYPES if kind in unsent):
            verified = self._read(round_id, record_type)
            if verified is not None:
                self._send(round_id, verified)

    def unsent(self, round_id: RoundId) -> set[type[SiloRecord]]:
        """Kinds of records that were written to the outbox and not confirmed by storage."""
        paths = {kind: self._path(round_id, kind.kind) for kind in RELEASED_TYPES}
        return {kind for kind, p in paths.items() if p.exists() and not _sent_marker(p).exists()}

    def withdraw(self, round_id: RoundId, record_type: type[SiloRecord]) -> None:
        """Forget a record that was never confirmed, because its door has closed."""
        if record_type in self.unsent(round_id):
            self._path(round_id, record_type.kind).unlink()

    def released(self, round_id: RoundId) -> Released:
        """What the outbox holds for this attempt."""
        return Released(
            acceptance=self._read(round_id, Acceptance),
            refusal=self._read(round_id, Refusal),
            verdict=self._read(round_id, Verdict),
            submission=self._read(round_id, Submission),
            evaluation=self._read(round_id, Evaluation),
            coalition_losses=self._read(round_id, CoalitionLosses),
        )

    def read_back(self, silo: str, keys: Collection[str]) -> list[SiloRecord]:
        """What this silo has signed with any of `keys` in its newest rounds, as its inbox has it.

        From now on the outbox holds just that of those slots, as sent. Raises StorageError.
        """
        found = newest_records(self._inbox, RELEASED_TYPES, keys, silo)
        kept: dict[Path, str] = {}
        for verified in found:
            path = self._path(attempt_of_record(verified.record), verified.record.kind)
            if kept.setdefault(path, verified.digest) != verified.digest:
                log.error("%s was signed twice: is the key on two machines?", path.stem)
                continue
            write_durably(path, verified.envelope)
            write_durably(_sent_marker(path), b"")
        return [v.record for v in found if isinstance(v.record, SiloRecord)]

    def last_submission(
        self, run: str, round_number: int, keys: Collection[str]
    ) -> Submission | None:
        """This silo's newest submission in any attempt of a round, signed with any of `keys`."""
        found = self._directory.glob(
            f"{run_round_prefix(run, round_number)}*/{Submission.kind}.json"
        )
        made = [verify(path.read_bytes(), Submission, keys).record for path in found]
        return max(made, key=lambda record: (record.attempt, record.issued_at), default=None)

    def kept_blob(self, ref: ArtifactRef) -> Path:
        """Where the outbox keeps an adapter that was released, if it still does."""
        return self._blob_path(ref)

    def status(self, status: Status) -> None:
        """Show progress; signed, never kept, never relied upon."""
        if not self._is_stopped():
            envelope = seal(status, self._key).envelope
            self._inbox.put(status_key(attempt_of_record(status), status.number), envelope)

    def say_stopped(self, status: Status) -> None:
        """The one word that leaves while the kill switch is on: that nothing else does."""
        if status.phase != "stopped":
            raise ValueError(f"expected the phase stopped, found {status.phase}")
        envelope = seal(status, self._key).envelope
        self._inbox.put(status_key(attempt_of_record(status), status.number), envelope)

    def _permitted(self, record: Submission, grounds: Grounds | None) -> Path:
        """The adapter's file, if what the submission rests on opens the door."""
        verdict = self._read(attempt_of_record(record), Verdict)
        found = "none"
        if grounds and verdict and verdict.digest == record.verdict_digest:
            now = self._clock.now()
            refusal = objection(verdict.record, grounds.plan, grounds.contract, now)
            if refusal is None:
                return grounds.adapter
            found = refusal.rule
        raise ReleaseForbiddenError(
            "release of a submission",
            expected="a passing verdict of this attempt on the contract in force",
            found=found,
            action="run the data gate again; nothing was sent",
        )

    def _require_running(self, kind: str) -> None:
        if self._is_stopped():
            raise ReleaseForbiddenError(
                f"release of {kind}",
                expected="the kill switch to be off",
                found="the silo operator has switched it on",
                action="run `silo-agent run --clear-stop` when the silo may take part again",
            )

    def _keep_blob(self, blob: Path, ref: ArtifactRef) -> None:
        if artifact_of_file(blob) != ref:
            raise ReleaseForbiddenError(
                f"adapter {blob}",
                expected=f"SHA-256 {ref.digest}",
                found="other bytes",
                action="train again; nothing was sent",
            )
        keep_durably(blob, self._blob_path(ref))

    def _send(self, round_id: RoundId, verified: Verified[SiloRecordT]) -> None:
        record = verified.record
        self._require_running(record.kind)
        self._require_first(round_id, verified)
        if isinstance(record, Submission):
            self._inbox.put_blob(self._blob_path(record.adapter), record.adapter)
        write_record(self._inbox, round_slot(round_id, record.kind), verified)
        write_durably(_sent_marker(self._path(round_id, record.kind)), b"")

    def _require_first(self, round_id: RoundId, verified: Verified[SiloRecordT]) -> None:
        """A second record in a slot takes this silo's part in the round from it."""
        kind, key = type(verified.record), self._key.public_key_hex
        reading = read_slot(self._inbox, round_slot(round_id, kind.kind), kind, {key})
        there = _digests(reading)
        if there and verified.digest not in there:
            home = self._directory.parent
            raise SiloOperatorError(
                f"{kind.kind} of round {verified.record.round}",
                expected="none in storage that this silo has signed elsewhere",
                found="another one, signed with this silo's key: it is on two machines",
                action="stop the agent on one of them for good, then on the other run "
                f"`{command_line('silo-agent', 'catch-up', '--home', home)}` and start it again",
            )

    def _read(
        self, round_id: RoundId, record_type: type[SiloRecordT]
    ) -> Verified[SiloRecordT] | None:
        path = self._path(round_id, record_type.kind)
        if not path.exists():
            return None
        return verify(path.read_bytes(), record_type, {self._key.public_key_hex})

    def _path(self, round_id: RoundId, kind: str) -> Path:
        slot = round_slot(round_id, kind).rstrip("/")
        return self._directory / f"{slot}.json"

    def _blob_path(self, ref: ArtifactRef) -> Path:
        return self._directory / blob_key(ref.digest)


def _digests(reading: SlotReading[SiloRecordT]) -> tuple[str, ...]:
    """Every valid record that a slot holds."""
    if isinstance(reading, Equivocation):
        return reading.digests
    return (reading.verified.digest,) if isinstance(reading, Found) else ()


def _sent_marker(path: Path) -> Path:
    return path.with_suffix(".sent")
