"""A local adapter as it leaves where the plan asks for encryption: made once, sent as it is.

There is an identity for this one blob; its private half leaves in the submission, sealed to the
attempt's recipient and around that to the coordinator's, and is on no disk here. So nobody opens
the blob without both of their identities, this silo included.

The ciphertext is in the outbox, synced, before the note that names it, and the note before the
record: a kill anywhere between leaves what the next start sends.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from data_contracts.protocol.bucket_layout import attempt_of
from data_contracts.protocol.dsse import to_base64
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan, Submission
from data_contracts.protocol.records.sealed_key import SealedKey
from data_contracts.protocol.wire_types import Part, SealedText
from infra.disk.durable_files import keep_durably, write_durably
from infra.encryption.encrypted_files import encrypt_file, sealed
from infra.encryption.identities import new_identity
from silo_agent.release.outbox import Outbox


class SealedNote(Part):
    """What a submission will say of a ciphertext that lies in the outbox."""

    adapter: ArtifactRef
    sealed_key: SealedText = Field(repr=False)


@dataclass(frozen=True)
class Sealing:
    """How this silo's adapter leaves in one attempt, under the coordinator's recipient of the
    plan's membership."""

    plan: Verified[RoundPlan]
    silo: str
    coordinator_recipient: str | None

    def told(self, submission: Submission, outbox: Outbox) -> dict[str, Any]:
        """Fields of the submission of an adapter whose file is in the outbox that differ where the
        plan asks for encryption."""
        encryption = self.plan.record.encryption
        if encryption is None:
            return {}
        if encryption.coordinator_recipient != self.coordinator_recipient:
            raise SiloOperatorError(
                f"adapter of round {self.plan.record.round}",
                expected=f"a plan that encrypts to {self.coordinator_recipient or 'nobody'}, whom "
                "its membership names as the coordinator",
                found=encryption.coordinator_recipient,
                action="nothing was sent; tell the federation operator",
            )
        path = outbox.sealed_note(attempt_of(self.plan))
        note = read_note(path)
        if note is None or not _fits(note, submission, outbox):
            note = self._sealed(submission.adapter, outbox)
            write_durably(path, note.model_dump_json().encode())
        return {"adapter": note.adapter, "sealed_key": note.sealed_key}

    def _sealed(self, adapter: ArtifactRef, outbox: Outbox) -> SealedNote:
        encryption, identity = self.plan.record.encryption, new_identity()
        if encryption is None:
            raise ValueError("expected a plan that asks for encryption")
        aside = outbox.sealed_note(attempt_of(self.plan)).with_suffix(".age")
        named = encrypt_file(outbox.adapter(adapter), adapter, aside, [identity.recipient])
        keep_durably(aside, outbox.adapter(named.stored))
        aside.unlink()
        key = SealedKey(silo=self.silo, plan_digest=self.plan.digest, identity=identity.secret)
        inner = sealed(key.model_dump_json().encode(), encryption.round_recipient)
        outer = sealed(inner, encryption.coordinator_recipient)
        return SealedNote(adapter=named, sealed_key=to_base64(outer))


def _fits(note: SealedNote, submission: Submission, outbox: Outbox) -> bool:
    """Whether a killed start left all of the ciphertext of just this adapter."""
    path = outbox.adapter(note.adapter.stored)
    is_of = note.adapter.plain == submission.adapter
    return is_of and path.exists() and artifact_of_file(path) == note.adapter.stored


def read_note(path: Path) -> SealedNote | None:
    """What is noted there; None where nothing is, or something damaged: then the adapter is
    encrypted anew."""
    try:
        return SealedNote.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
