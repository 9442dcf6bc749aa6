"""The only way out of the silo.

Guaranteed for everything that leaves: the kill switch was off, its door was open by what was in
force at that moment, the contract's egress was applied, the record was signed by the silo's key,
and the bytes were first written to the local outbox and synced, blob before record, encrypted where
the plan asks for it. A retry sends those very bytes, if their door is still open. Nothing else in
this package holds the inbox for writing.
"""

import logging
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_contracts.dataset.contract.agreement import Parties
from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.bucket_layout import (
    attempt_of,
    attempt_of_record,
    round_slot,
    status_key,
)
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    Acceptance,
    Refusal,
    RoundPlan,
    SiloRecord,
    Status,
    Submission,
    Verdict,
)
from data_contracts.protocol.records.privacy_terms import PrivacyStatement
from infra.clock import Clock
from infra.disk.durable_files import keep_durably
from infra.disk.file_digests import FileDigests
from infra.records.newest_records import newest_records
from infra.records.record_store import Equivocation, Found, SlotReading, read_slot, write_record
from infra.storage.object_store import Bucket
from infra.terminal import command_line
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.policy.in_force import InForce
from silo_agent.policy.plan_context import PolicyRefusal
from silo_agent.release.doors import NO_CONTRACT, Grounds, objection
from silo_agent.release.egress import leaving, leaving_memory
from silo_agent.release.outbox import RELEASED_TYPES, Outbox, Released
from silo_agent.release.sealing import Sealing

log = logging.getLogger("silo-agent")

SiloRecordT = TypeVar("SiloRecordT", bound=SiloRecord)

ANSWERS: tuple[type[SiloRecord], ...] = (Acceptance, Refusal)
"""What leaves whether or not there is a contract."""


class ReleaseForbiddenError(SiloOperatorError):
    """The kill switch is on, or what should leave does not rest on a passing verdict."""


class DoorClosedError(ReleaseForbiddenError):
    """Nothing in force lets a record of this `kind` out; `refusal` says why."""

    def __init__(self, kind: type[SiloRecord], refusal: PolicyRefusal) -> None:
        super().__init__(
            f"release of a {kind.kind}",
            expected="policy, verdict and contract in force to let it out",
            found=refusal.rule,
            action="run the data gate again; nothing was sent",
        )
        self.kind, self.refusal = kind, refusal


class Release:
    """Outbox on local disk in front of the silo's inbox in storage; `in_force` is asked anew for
    everything that leaves. `digests` knows the files that were hashed to be named in a record."""

    def __init__(
        self,
        outbox: Outbox,
        inbox: Bucket,
        clock: Clock,
        is_stopped: Callable[[], bool],
        in_force: InForce,
    ) -> None:
        self.outbox = outbox
        self.in_force = in_force
        self.digests = FileDigests(None)
        self._inbox = inbox
        self._clock = clock
        self._is_stopped = is_stopped

    def about(
        self, plan: Verified[RoundPlan], parties: Parties, coordinator_recipient: str | None = None
    ) -> "PlanRelease":
        """The way out for what is said about one plan, on the contract that `parties` sign.

        `coordinator_recipient` is that of the plan's membership, for a plan that encrypts.
        """
        return PlanRelease(self, plan, parties, Sealing(plan, parties.silo, coordinator_recipient))

    def read_back(self, silo: str, keys: Collection[str]) -> list[SiloRecord]:
        """What this silo has signed with any of `keys` in its newest rounds, as its inbox has it.

        From now on the outbox holds just that of those slots, as sent. Raises StorageError.
        """
        found = newest_records(self._inbox, RELEASED_TYPES, keys, silo)
        self.outbox.put_back(found)
        return [v.record for v in found if isinstance(v.record, SiloRecord)]

    def signed_privacy(self, silo: str, keys: Collection[str]) -> list[PrivacyStatement]:
        """What this silo has signed of private trainings, in the outbox and in its newest rounds in
        storage. Raises StorageError."""
        stored = newest_records(self._inbox, (Verdict,), keys, silo)
        signed = [*self.outbox.verdicts(), *(v.record for v in stored)]
        verdicts = [record for record in signed if isinstance(record, Verdict)]
        return [verdict.privacy for verdict in verdicts if verdict.privacy is not None]

    def _require_running(self, kind: str) -> None:
        if self._is_stopped():
            raise ReleaseForbiddenError(
                f"release of {kind}",
                expected="the kill switch to be off",
                found="the silo operator has switched it on",
                action="run `silo-agent run --clear-stop` when the silo may take part again",
            )

    def _send(self, verified: Verified[SiloRecordT]) -> None:
        record = verified.record
        self._require_running(record.kind)
        self._require_first(verified)
        if isinstance(record, Submission):
            stored = record.adapter.stored
            self._inbox.put_blob(self.outbox.adapter(stored), stored)
        write_record(self._inbox, _slot(record), verified)
        self.outbox.confirm(verified)

    def _show(self, status: Status) -> None:
        envelope = self.outbox.signed(status).envelope
        self._inbox.put(status_key(attempt_of_record(status), status.number), envelope)

    def _require_first(self, verified: Verified[SiloRecordT]) -> None:
        """A second record in a slot takes this silo's part in the round from it."""
        record = verified.record
        there = _digests(
            read_slot(self._inbox, _slot(record), type(record), {self.outbox.public_key})
        )
        if there and verified.digest not in there:
            home = self.outbox.directory.parent
            raise SiloOperatorError(
                f"{record.kind} of round {record.round}",
                expected="none in storage that this silo has signed elsewhere",
                found="another one, signed with this silo's key: it is on two machines",
                action="stop the agent on one of them for good, then on the other run "
                f"`{command_line('silo-agent', 'catch-up', '--home', home)}` and start it again",
            )


@dataclass(frozen=True)
class PlanRelease:
    """The way out for what is said about one plan, on the contract that `parties` sign."""

    release: Release
    plan: Verified[RoundPlan]
    parties: Parties
    sealing: Sealing

    def require_open(self, kind: type[SiloRecord]) -> ContractTerms:
        """The contract in force, if what is in force lets this kind out; raises DoorClosedError."""
        release = self.release
        contract = release.in_force.contract(self.parties)
        verdict = release.outbox.read(attempt_of(self.plan), Verdict)
        grounds = Grounds(
            silo=self.parties.silo,
            plan=self.plan,
            verdict=verdict.record if verdict else None,
            contract=contract,
            policy=release.in_force.policy(),
            now=release._clock.now(),
        )
        closed = objection(kind, grounds)
        if closed is not None or contract is None:
            raise DoorClosedError(kind, closed or NO_CONTRACT)
        return contract

    def record(self, record: SiloRecordT, adapter: Path | None = None) -> Verified[SiloRecordT]:
        """Release a record as far as it may leave; a submission with the `adapter` it names.

        If this kind was released before in this attempt, those bytes are sent again instead.
        Raises DoorClosedError.
        """
        outbox = self.release.outbox
        self.release._require_running(record.kind)
        may_leave = self._may_leave(record)
        kept = outbox.read(attempt_of_record(record), type(record))
        if kept is None:
            kept = outbox.signed(self._with_adapter(may_leave, adapter))
            outbox.keep(kept)
        self.release._send(kept)
        return kept

    def send_unsent(self, released: Released) -> None:
        """Send again what was signed but not confirmed by storage, if its door is open now.

        Raises DoorClosedError with the first whose door is not; that one is withdrawn.
        """
        outbox = self.release.outbox
        for verified in outbox.unsent(released):
            try:
                self._may_leave(verified.record)
            except DoorClosedError as closed:
                outbox.withdraw(verified)
                kind, why = verified.record.kind, closed.refusal.reason
                log.warning("an unsent %s does not leave: %s", kind, why)
                raise
            self.release._send(verified)

    def status(self, status: Status) -> None:
        """Show progress; signed, never kept, never relied upon, and not shown where it may not."""
        if not self.release._is_stopped():
            self._show(status)

    def say_stopped(self, status: Status) -> None:
        """The one word that leaves while the kill switch is on: that nothing else does."""
        if status.phase != "stopped":
            raise ValueError(f"expected the phase stopped, found {status.phase}")
        self._show(status)

    def _show(self, status: Status) -> None:
        with suppress(DoorClosedError):
            may_leave = self._may_leave(status)
            self.release._show(leaving_memory(may_leave, self.release.in_force.policy()))

    def _may_leave(self, record: SiloRecordT) -> SiloRecordT:
        """What of a record its open door lets out; raises DoorClosedError."""
        if isinstance(record, ANSWERS):
            return record
        if isinstance(record, Submission):
            self._require_verdict(record)
        return leaving(record, self.require_open(type(record)))

    def _require_verdict(self, submission: Submission) -> None:
        verdict = self.release.outbox.read(attempt_of_record(submission), Verdict)
        if verdict is None or verdict.digest != submission.verdict_digest:
            raise ReleaseForbiddenError(
                "release of a submission",
                expected="a passing verdict of this attempt on the contract in force",
                found="none",
                action="run the data gate again; nothing was sent",
            )

    def _with_adapter(self, record: SiloRecordT, adapter: Path | None) -> SiloRecordT:
        """The record once all that it names is in the outbox, as it will lie in storage."""
        if not isinstance(record, Submission):
            return record
        self._keep_adapter(record.adapter, adapter)
        return record.model_copy(update=self.sealing.told(record, self.release.outbox))

    def _keep_adapter(self, ref: ArtifactRef, adapter: Path | None) -> None:
        if adapter is None or self.release.digests.artifact(adapter) != ref:
            raise ReleaseForbiddenError(
                f"adapter {adapter}",
                expected=f"SHA-256 {ref.digest}",
                found="other bytes" if adapter else "none",
                action="train again; nothing was sent",
            )
        keep_durably(adapter, self.release.outbox.adapter(ref))


def _slot(record: SiloRecord) -> str:
    return round_slot(attempt_of_record(record), record.kind)


def _digests(reading: SlotReading[SiloRecordT]) -> tuple[str, ...]:
    """Every valid record that a slot holds."""
    if isinstance(reading, Equivocation):
        return reading.digests
    return (reading.verified.digest,) if isinstance(reading, Found) else ()
