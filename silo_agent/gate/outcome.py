"""What the gate found, and the outcomes that it keeps so that nothing is looked at twice.

An outcome is kept under the digests of contract, content and registries, with a keyed digest of its
own, so that a damaged or edited one is made again. It counts until the first of what it rests on
expires. Keeping forgets what was not used for as long as the contract's retention says.
"""

import hashlib
import hmac
import json
import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import rfc8785
from pydantic import ValidationError

from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.records.privacy_terms import PrivacyUnit
from data_contracts.protocol.records.verdict import LicenceCount, RuleOutcome
from data_contracts.protocol.wire_types import Count, Digest, Instant, Part
from infra.disk.durable_files import write_durably

FINDINGS_NAME = "findings.sqlite"
OUTCOME_NAME = "outcome.json"
PROFILE_NAME = "profile.json"
_OUTCOME_FOLDER = re.compile(r"[0-9a-f]{64}")
MAX_OUTCOME_BYTES = 4 * 1024 * 1024
SECONDS_PER_DAY = 86_400


class GateOutcome(Part):
    """What the gate found; `records` (of the whole data set), `train_records` and `heldout_records`
    are exact and stay in the silo.

    `key` names the kept outcome, whose findings table says which records may be trained on; it is
    None when nothing was looked at. `escalated` counts records that needed the slow recognisers.
    `train_subjects`: subjects of the training records; None where the data name none.
    """

    passed: bool
    outcomes: tuple[RuleOutcome, ...]
    licences: tuple[LicenceCount, ...]
    findings_digest: Digest
    contract_digest: Digest
    expires_at: Instant
    operator_notes: tuple[str, ...]
    train_records: Count
    heldout_records: Count
    records: Count = 0
    escalated: Count = 0
    train_subjects: Count | None = None
    content_digest: Digest | None = None
    key: Digest | None = None

    def units(self, unit: PrivacyUnit) -> int | None:
        """How many units of differential privacy are trained on; None where that is unknown."""
        return self.train_records if unit == "record" else self.train_subjects

    def with_preconditions(self, held: Sequence[RuleOutcome]) -> "GateOutcome":
        """The same outcome with what was checked before it in front."""
        return self.model_copy(update={"outcomes": (*held, *self.outcomes)})


@dataclass(frozen=True)
class Looked:
    """A new outcome, its findings table, and its profile in bytes."""

    outcome: GateOutcome
    findings: Path
    profile: bytes


class _Kept(Part):
    """A kept outcome. `baseline` is the digest of the profile it was compared with, `profile` of
    its own: against itself a data set has not drifted."""

    outcome: GateOutcome
    baseline: Digest | None
    profile: Digest


@dataclass(frozen=True)
class OutcomeKey:
    """What decides an outcome; the same key gives the same outcome."""

    contract_digest: str
    content_digest: str
    references_digest: str
    version: str

    @property
    def digest(self) -> str:
        """SHA-256 that names all of it."""
        return digest_of_bytes(rfc8785.dumps(self.__dict__))


@dataclass(frozen=True)
class KeptOutcomes:
    """Outcomes below `directory`, sealed with `key` (the findings key)."""

    directory: Path
    key: bytes

    def folder(self, digest: str) -> Path:
        """Where the outcome with this key, its findings and its profile lie."""
        return self.directory / digest

    def new_findings_path(self, digest: str) -> Path:
        """Where this process writes a findings table before it is kept."""
        return self.folder(digest) / f"{os.getpid()}.{FINDINGS_NAME}"

    def clear_unfinished(self, digest: str) -> None:
        """Delete what a check that was killed left half written."""
        for path in self.folder(digest).glob("*"):
            if path.name not in (FINDINGS_NAME, OUTCOME_NAME, PROFILE_NAME):
                path.unlink(missing_ok=True)

    def forget(self, digest: str) -> None:
        """Delete one outcome, so that the next check looks again."""
        shutil.rmtree(self.folder(digest), ignore_errors=True)

    def findings_path(self, digest: str) -> Path:
        """The findings table of a kept outcome."""
        return self.folder(digest) / FINDINGS_NAME

    def profile(self, digest: str) -> bytes:
        """The profile of a kept outcome, as bytes to compare the next round with."""
        return (self.folder(digest) / PROFILE_NAME).read_bytes()

    def get(self, key: OutcomeKey, baseline: bytes | None, now: datetime) -> GateOutcome | None:
        """The outcome for `key` if it still counts at `now`, against this baseline."""
        path = self.folder(key.digest) / OUTCOME_NAME
        kept = self._read(path)
        if kept is None or kept.outcome.expires_at <= now:
            return None
        wanted = digest_of_bytes(baseline) if baseline else None
        against_itself = wanted == kept.profile and kept.outcome.passed
        if not self.findings_path(key.digest).exists():
            return None
        if kept.baseline != wanted and not against_itself:
            return None
        path.touch()
        return kept.outcome

    def with_findings(self, findings_digest: str) -> GateOutcome | None:
        """The kept outcome with these findings, whether or not it still counts."""
        for path in sorted(self.directory.glob(f"*/{OUTCOME_NAME}")):
            kept = self._read(path)
            if kept is not None and kept.outcome.findings_digest == findings_digest:
                return kept.outcome
        return None

    def put(self, key: OutcomeKey, looked: Looked, baseline: bytes | None) -> None:
        """Keep what was found: table and profile first, the outcome last."""
        kept = _Kept(
            outcome=looked.outcome,
            baseline=digest_of_bytes(baseline) if baseline else None,
            profile=digest_of_bytes(looked.profile),
        )
        body = kept.model_dump_json().encode()
        folder = self.folder(key.digest)
        looked.findings.replace(self.findings_path(key.digest))
        write_durably(folder / PROFILE_NAME, looked.profile)
        sealed = json.dumps({"seal": self._seal(body), "kept": body.decode()}).encode()
        write_durably(folder / OUTCOME_NAME, sealed)

    def forget_unused(self, retention: timedelta, *, but: str | None = None) -> None:
        """Delete what was not used for `retention`, but for the outcome with the key `but`."""
        before = time.time() - retention.total_seconds()
        for folder in self.directory.glob("*"):
            outcome = folder / OUTCOME_NAME
            used = outcome.stat().st_mtime if outcome.exists() else folder.stat().st_mtime
            is_own = _OUTCOME_FOLDER.fullmatch(folder.name) is not None
            if is_own and folder.name != but and used < before:
                shutil.rmtree(folder, ignore_errors=True)

    def _read(self, path: Path) -> _Kept | None:
        """A damaged or edited outcome is none: it can always be made again."""
        try:
            if path.stat().st_size > MAX_OUTCOME_BYTES:
                return None
            sealed = json.loads(path.read_bytes())
            body = sealed["kept"].encode()
            if not hmac.compare_digest(sealed["seal"], self._seal(body)):
                return None
            return _Kept.model_validate_json(body)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError):
            return None

    def _seal(self, body: bytes) -> str:
        return hmac.new(self.key, b"kept-outcome-v1\n" + body, hashlib.sha256).hexdigest()
