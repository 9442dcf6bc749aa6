"""The residuals of one run on this silo's disk, and which of them a round continues from.

A round continues from what the round before it left, and only if this silo submitted then. Every
record says what the round started from, what was sent and which residual went into it, so that

- a retry of a round continues from the same residual again and writes the same bytes;
- a round whose submission was not merged (held, aborted, left out at the close) changes nothing.
  What it sent was never applied, and local steps start over from where they started, so the whole
  of it is dropped and the residual that went *into* it stays the one to use. To carry d + e on
  instead would add an update that was trained from a start which the federation did not keep;
- a state that is missing, damaged, or belongs to another submission than this silo's last one, as
  after restoring a backup, is not used: what an older residual holds may have been sent since, and
  nothing is ever sent twice. The round begins from none, as after one that was sat out, and the
  reason is told. A residual is never dropped or exchanged silently.

Order: residual files first, then the record that names them by digest.
"""

from pathlib import Path

from pydantic import ValidationError

from data_contracts.adapters.adapter_format import AdapterFile, open_adapter
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_file
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.wire_types import Digest, Part, RoundNumber, RunId
from infra.disk.durable_files import sync_directory, write_durably
from silo_agent.compression.error_feedback import CarriedError, Compressed, RoundFiles


class Origin(Part):
    """The residual that went into a round: the round that left it, and its digest."""

    round: RoundNumber
    residual: Digest


class ResidualRecord(Part):
    """What one round left: `starting` is None for a round that starts from the plan's seed."""

    run: RunId
    round: RoundNumber
    starting: Digest | None
    sent: Digest
    layout: AdapterLayout
    residual: ArtifactRef
    factors: ArtifactRef | None
    origin: Origin | None


class Carry(Part):
    """What a round continues from, or None, with the reason for the log."""

    record: ResidualRecord | None
    reason: str


class RoundBefore(Part):
    """What became of the round before: the digest this silo submitted, and whether it was merged.

    `submitted` is None when it submitted nothing, or a whole adapter. `merged` says that the close
    admitted it and the decision published the candidate.
    """

    submitted: Digest | None
    merged: bool


class ErrorFeedback:
    """State under `directory`, one folder for each run; safe to stop anywhere."""

    def __init__(self, directory: Path, run: str) -> None:
        self._directory, self._run = directory / run, run

    def carried_into(
        self, round_number: int, layout: AdapterLayout, starting: str | None, before: RoundBefore
    ) -> Carry:
        """What round `round_number`, which starts from the digest `starting`, continues from.

        The same for every attempt of the round, as long as nobody touches the state.
        """
        if before.submitted is None:
            return _nothing(f"nothing compressed was sent in round {round_number - 1}")
        last = self._record(round_number - 1)
        if last is None or last.sent != before.submitted:
            found = f"one for {last.sent}" if last else "none that this agent wrote"
            return _unfit(f"expected the state that belongs to {before.submitted}, found {found}")
        return self._usable(last, layout, starting, before.merged)

    def open(self, carry: Carry) -> tuple[Carry, CarriedError | None]:
        """`carry` with its files, checked against their digests; without both if they are not."""
        record = carry.record
        if record is None:
            return carry, None
        residual_path, factors_path = self._paths(record.round)
        residual = _opened(residual_path, record.residual, record.layout)
        if residual is None:
            return _unfit(f"{residual_path.name} is missing or damaged"), None
        if record.factors is None:
            return carry, CarriedError(residual, None)
        factors = _opened(factors_path, record.factors, record.layout.without_wholes)
        if factors is None:
            return _unfit(f"{factors_path.name} is missing or damaged"), None
        return carry, CarriedError(residual, factors)

    def files(self, round_number: int, sent: Path, is_rebasing: bool) -> RoundFiles:
        """Where `compress` puts the files of a round; `is_rebasing`: see `REBASING_RULES`."""
        residual, factors = self._paths(round_number)
        return RoundFiles(sent, residual, factors if is_rebasing else None)

    def keep(
        self,
        round_number: int,
        layout: AdapterLayout,
        starting: str | None,
        carry: Carry,
        compressed: Compressed,
    ) -> None:
        """Record what a round left, before what it sends leaves; older states no one needs go."""
        source = carry.record
        origin = Origin(round=source.round, residual=source.residual.digest) if source else None
        record = ResidualRecord(
            run=self._run,
            round=round_number,
            starting=starting,
            sent=compressed.sent.digest,
            layout=layout,
            residual=compressed.residual,
            factors=compressed.factors,
            origin=origin,
        )
        write_durably(self._record_path(round_number), record.model_dump_json().encode())
        self._prune({round_number, round_number - 1, *([origin.round] if origin else [])})

    def reset(self) -> None:
        """Forget every residual of the run; the next round continues from none."""
        if self._directory.exists():
            self._prune(set())

    def _usable(
        self, last: ResidualRecord, layout: AdapterLayout, starting: str | None, merged: bool
    ) -> Carry:
        """`last` if it was merged, otherwise what went into it, as long as it still fits."""
        record, reason = last, f"left by round {last.round}"
        if not merged or last.starting == starting:
            if last.origin is None:
                return _nothing(f"round {last.round} was not merged and continued from none")
            origin = self._record(last.origin.round)
            if origin is None or origin.residual.digest != last.origin.residual:
                return _unfit(f"what went into round {last.round}, not merged, is gone")
            record, reason = origin, f"went into round {last.round}, not merged"
        if record.layout != layout:
            return _nothing("the layout of the adapter changed")
        moved = last.starting != starting and last.factors is not None
        if moved and record.factors is None:
            return _nothing("the factors were re-based since")
        return Carry(record=record, reason=reason)

    def _record(self, round_number: int) -> ResidualRecord | None:
        """The record of a round, None where there is none that this agent wrote for it."""
        try:
            raw = self._record_path(round_number).read_bytes()
            record = ResidualRecord.model_validate_json(raw)
        except (OSError, ValidationError):
            return None
        is_own = (record.run, record.round) == (self._run, round_number)
        return record if is_own else None

    def _prune(self, kept: set[int]) -> None:
        for number in self._rounds() - kept:
            for path in (self._record_path(number), *self._paths(number)):
                path.unlink(missing_ok=True)
        sync_directory(self._directory)

    def _rounds(self) -> set[int]:
        names = (path.name.partition(".")[0] for path in self._directory.glob("*.*"))
        return {int(name) for name in names if name.isdecimal()}

    def _paths(self, round_number: int) -> tuple[Path, Path]:
        stem = self._directory / f"{round_number:04d}"
        return stem.with_suffix(".residual.safetensors"), stem.with_suffix(".factors.safetensors")

    def _record_path(self, round_number: int) -> Path:
        return self._directory / f"{round_number:04d}.json"


def _opened(path: Path, reference: ArtifactRef, layout: AdapterLayout) -> AdapterFile | None:
    try:
        return open_adapter(path, layout) if artifact_of_file(path) == reference else None
    except (OSError, UntrustedInputError):
        return None


def _nothing(reason: str) -> Carry:
    return Carry(record=None, reason=reason)


def _unfit(found: str) -> Carry:
    return _nothing(f"{found}: what earlier rounds left unsent is given up")
