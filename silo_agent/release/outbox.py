"""The silo's outbox: what it has signed, on local disk, before and after that reaches storage.

Guaranteed: a record is written and synced before the first byte of it leaves, and stays as it was
signed. A marker beside it says that storage has confirmed it.
"""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.bucket_layout import (
    RoundId,
    attempt_of_record,
    blob_key,
    round_slot,
    run_round_prefix,
)
from data_contracts.protocol.envelope import Verified, seal, unverified_record, verify
from data_contracts.protocol.records import (
    Acceptance,
    CoalitionLosses,
    Countersignature,
    Evaluation,
    MaskKeys,
    Refusal,
    RevealedShares,
    RoundRecord,
    SealedShares,
    SiloRecord,
    Submission,
    Verdict,
)
from data_contracts.protocol.records.privacy_terms import PrivacyStatement
from infra.disk.durable_files import write_durably
from infra.records.attempt_reader import SILO_TYPES
from infra.signing_keys import SigningKey

log = logging.getLogger("silo-agent")

SiloRecordT = TypeVar("SiloRecordT", bound=SiloRecord)
RoundRecordT = TypeVar("RoundRecordT", bound=RoundRecord)

OUTBOX = "outbox"
"""Directory of the silo's home for everything that leaves."""

SEALED_NOTE = "submission.sealed"
"""Beside an attempt's submission, where its adapter is encrypted."""

RELEASED_TYPES: tuple[type[SiloRecord], ...] = (*SILO_TYPES, CoalitionLosses)


@dataclass(frozen=True)
class Released:
    """What this silo has released, or is about to release again, in one attempt."""

    acceptance: Verified[Acceptance] | None
    refusal: Verified[Refusal] | None
    verdict: Verified[Verdict] | None
    mask_keys: Verified[MaskKeys] | None
    sealed_shares: Verified[SealedShares] | None
    submission: Verified[Submission] | None
    countersignature: Verified[Countersignature] | None
    revealed_shares: Verified[RevealedShares] | None
    evaluation: Verified[Evaluation] | None
    coalition_losses: Verified[CoalitionLosses] | None

    @property
    def may_be_asked(self) -> bool:
        """Whether losses of coalitions may be asked of this silo: it shares its adapter, and has
        done all else. A silo that does not share does not even look for a request."""
        shares = self.acceptance is not None and self.acceptance.record.shares_individual_delta
        done = self.submission is not None and self.evaluation is not None
        return shares and done and self.coalition_losses is None

    def records(self) -> list[Verified[SiloRecord]]:
        """All of it, in the order in which it leaves."""
        return [found for found in vars(self).values() if found is not None]


def kept_verdicts(directory: Path) -> list[Verdict]:
    """Every verdict in the outbox `directory`, of this silo's own disk, under whatever key: that
    may have been rotated since."""
    found = sorted(directory.rglob(f"{Verdict.kind}.json"))
    return [unverified_record(path.read_bytes(), Verdict) for path in found]


def kept_statements(directory: Path) -> list[PrivacyStatement]:
    """What those say of private trainings."""
    return [each.privacy for each in kept_verdicts(directory) if each.privacy is not None]


def kept_refusal(directory: Path, of: RoundRecord) -> Refusal | None:
    """This silo's refusal in the attempt that `of` is about, on its own disk; None without one, or
    where it cannot be read."""
    slot = round_slot(attempt_of_record(of), Refusal.kind).rstrip("/")
    try:
        return unverified_record((directory / f"{slot}.json").read_bytes(), Refusal)
    except (OSError, UntrustedInputError):
        return None


class Outbox:
    """Everything below `directory`, signed with the silo's `key`."""

    def __init__(self, directory: Path, key: SigningKey) -> None:
        self.directory = directory
        self._key = key

    @property
    def public_key(self) -> str:
        """Public key (hex) that everything here is signed with."""
        return self._key.public_key_hex

    def signed(self, record: SiloRecordT) -> Verified[SiloRecordT]:
        """A record under the silo's key; it is not kept."""
        return seal(record, self._key)

    def keep(self, verified: Verified[RoundRecordT]) -> None:
        """Write down what is about to leave."""
        write_durably(self._path_of(verified.record), verified.envelope)

    def confirm(self, verified: Verified[RoundRecordT]) -> None:
        """Note that storage has it."""
        write_durably(_sent_marker(self._path_of(verified.record)), b"")

    def withdraw(self, verified: Verified[SiloRecord]) -> None:
        """Forget a record that was never confirmed, because its door has closed."""
        self._path_of(verified.record).unlink()

    def unsent(self, released: Released) -> list[Verified[SiloRecord]]:
        """What of it was written down and not confirmed by storage, in the order of leaving."""
        records = released.records()
        return [v for v in records if not _sent_marker(self._path_of(v.record)).exists()]

    def released(self, round_id: RoundId) -> Released:
        """What the outbox holds for this attempt."""
        return Released(
            acceptance=self.read(round_id, Acceptance),
            refusal=self.read(round_id, Refusal),
            verdict=self.read(round_id, Verdict),
            mask_keys=self.read(round_id, MaskKeys),
            sealed_shares=self.read(round_id, SealedShares),
            submission=self.read(round_id, Submission),
            countersignature=self.read(round_id, Countersignature),
            revealed_shares=self.read(round_id, RevealedShares),
            evaluation=self.read(round_id, Evaluation),
            coalition_losses=self.read(round_id, CoalitionLosses),
        )

    def read(
        self, round_id: RoundId, record_type: type[SiloRecordT]
    ) -> Verified[SiloRecordT] | None:
        """The record of this kind in an attempt; UntrustedInputError under another key."""
        path = self._path(round_id, record_type.kind)
        if not path.exists():
            return None
        return verify(path.read_bytes(), record_type, {self.public_key})

    def put_back(self, found: Iterable[Verified[RoundRecord]]) -> None:
        """Hold what was found in storage, as sent; of two in a slot the first."""
        kept: dict[Path, str] = {}
        for verified in found:
            path = self._path_of(verified.record)
            if kept.setdefault(path, verified.digest) != verified.digest:
                log.error("%s was signed twice: is the key on two machines?", path.stem)
                continue
            self.keep(verified)
            self.confirm(verified)

    def last_submission(
        self, run: str, round_number: int, keys: Collection[str]
    ) -> Submission | None:
        """This silo's newest submission in any attempt of a round, signed with any of `keys`."""
        found = self.directory.glob(
            f"{run_round_prefix(run, round_number)}*/{Submission.kind}.json"
        )
        made = [verify(path.read_bytes(), Submission, keys).record for path in found]
        return max(made, key=lambda record: (record.attempt, record.issued_at), default=None)

    def verdicts(self) -> list[Verdict]:
        """Every one that is kept."""
        return kept_verdicts(self.directory)

    def has_revealed(self, run: str, round_number: int, other_than: str) -> bool:
        """Whether shares were revealed in any attempt of a round but that of the plan with the
        digest `other_than`."""
        found = self.directory.glob(
            f"{run_round_prefix(run, round_number)}*/{RevealedShares.kind}.json"
        )
        # Of this silo's own disk; the key that signed it may have been rotated since.
        made = (unverified_record(path.read_bytes(), RevealedShares) for path in found)
        return any(record.plan_digest != other_than for record in made)

    def sealed_note(self, round_id: RoundId) -> Path:
        """Where it is kept what an attempt's submission says of an encrypted adapter."""
        return self._path(round_id, Submission.kind).with_name(SEALED_NOTE)

    def adapter(self, ref: ArtifactRef) -> Path:
        """Where an adapter that was released is kept, or its ciphertext, if it still is."""
        return self.directory / blob_key(ref.digest)

    def _path_of(self, record: RoundRecord) -> Path:
        return self._path(attempt_of_record(record), record.kind)

    def _path(self, round_id: RoundId, kind: str) -> Path:
        slot = round_slot(round_id, kind).rstrip("/")
        return self.directory / f"{slot}.json"


def _sent_marker(path: Path) -> Path:
    return path.with_suffix(".sent")
