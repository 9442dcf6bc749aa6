"""The data gate: no record is trained on unless the silo's data contract allows it.

`check_data` answers in this order: the contract has not expired, the data file is there and inside
the data root, and then every rule of the contract over one pass of findings. What is wrong with the
data is a failing outcome, never an exception. `write_splits` reads the file again and gives up
unless its findings are those that were checked, so that the data cannot change in between.
`outcomes`, `licences` and the digests may leave the silo; `operator_notes` may not.
"""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.findings import Findings, FindingsBuilder, collect_findings, split_of
from data_contracts.dataset.licence import LicencePolicy
from data_contracts.dataset.records import DataRecord, UnreadableRow, read_records
from data_contracts.dataset.small_cells import reported_licences
from data_contracts.errors import DataStewardError, SiloOperatorError
from data_contracts.records.verdict import LicenceCount, RuleOutcome

TRAIN_FILE = "train.jsonl"
HELD_OUT_FILE = "heldout.jsonl"


@dataclass(frozen=True)
class GateOutcome:
    """What the gate found; `train_records` and `heldout_records` are exact and stay in the silo."""

    passed: bool
    outcomes: tuple[RuleOutcome, ...]
    licences: tuple[LicenceCount, ...]
    findings_digest: str
    contract_digest: str
    expires_at: datetime
    operator_notes: tuple[str, ...]
    train_records: int
    heldout_records: int


@dataclass(frozen=True)
class SplitFiles:
    """The two files that `write_splits` wrote, with their numbers of records."""

    train: Path
    heldout: Path
    train_records: int
    heldout_records: int


def check_data(
    contract: DataContract, data_root: Path, findings_key: bytes, *, now: datetime
) -> GateOutcome:
    """Judge the contract's data at `now` (an aware datetime).

    `findings_key` is the silo's own secret of at least 32 bytes. Raises DataStewardError only when
    a rule of the contract itself cannot be evaluated.
    """
    preconditions = [_precondition("contract.current", contract.is_current(now))]
    if not contract.is_current(now):
        note = f"contract {contract.id} expired at {contract.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        return _failed(contract, preconditions, findings_key, note)
    policy = LicencePolicy(contract.licences)
    try:
        path = _data_file(contract, data_root)
        findings = collect_findings(read_records(path), findings_key, policy)
    except _DataUnavailableError as error:
        preconditions.append(_precondition("data.available", False))
        return _failed(contract, preconditions, findings_key, str(error))
    except OSError as error:
        preconditions.append(_precondition("data.available", False))
        note = f"data file cannot be read: {error.strerror}"
        return _failed(contract, preconditions, findings_key, note)
    preconditions.append(_precondition("data.available", True))
    return _judged(contract, findings, preconditions)


def write_splits(
    contract: DataContract,
    data_root: Path,
    into: Path,
    *,
    findings_key: bytes,
    findings_digest: str,
) -> SplitFiles:
    """Write train.jsonl and heldout.jsonl ({"prompt", "answer"} per line, mode 0600) into `into`.

    Records keep the order of the file; those that are unreadable, empty, not allowed by their
    licence, or an exact repetition of an earlier one are left out. Raises DataStewardError, and
    leaves neither file, when the data is no longer what `findings_digest` was made from.
    """
    staging = into / ".splits"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True, mode=0o700)
        path = _data_file(contract, data_root)
        counts = _write_checked(contract, path, staging, findings_key, findings_digest)
        for name in (TRAIN_FILE, HELD_OUT_FILE):
            (staging / name).replace(into / name)
    except _DataUnavailableError as error:
        raise _changed(str(error)) from None
    except OSError as error:
        raise _cannot_write(into, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return SplitFiles(into / TRAIN_FILE, into / HELD_OUT_FILE, counts["train"], counts["heldout"])


class _DataUnavailableError(Exception):
    """The data file is absent, not a regular file, or outside the data root."""


def _data_file(contract: DataContract, data_root: Path) -> Path:
    root = data_root.resolve()
    path = (root / contract.data_path).resolve()
    if not path.is_relative_to(root):
        raise _DataUnavailableError(f"{path} lies outside the data root {root}")
    if not path.is_file():
        raise _DataUnavailableError(f"{path} is not a file")
    return path


def _judged(
    contract: DataContract, findings: Findings, preconditions: list[RuleOutcome]
) -> GateOutcome:
    # Imported here because Great Expectations takes seconds to load and refusals need none of it.
    from data_contracts.dataset.expectations import evaluate

    outcomes = (*preconditions, *evaluate(contract, findings.table))
    table = findings.table
    usable = table[table["licence_allowed"] & ~table["is_empty"] & ~table["is_duplicate"]]
    return GateOutcome(
        passed=all(outcome.success for outcome in outcomes if outcome.severity == "critical"),
        outcomes=outcomes,
        licences=reported_licences(findings.licence_ids),
        findings_digest=findings.digest,
        contract_digest=contract.digest,
        expires_at=contract.expires_at,
        operator_notes=findings.notes,
        train_records=int((usable["split"] == "train").sum()),
        heldout_records=int((usable["split"] == "heldout").sum()),
    )


def _failed(
    contract: DataContract, outcomes: list[RuleOutcome], findings_key: bytes, note: str
) -> GateOutcome:
    """No record was looked at: the findings are those of an empty data set."""
    nothing = collect_findings([], findings_key, LicencePolicy(contract.licences))
    return GateOutcome(
        passed=False,
        outcomes=tuple(outcomes),
        licences=(),
        findings_digest=nothing.digest,
        contract_digest=contract.digest,
        expires_at=contract.expires_at,
        operator_notes=(note,),
        train_records=0,
        heldout_records=0,
    )


def _precondition(rule: str, success: bool) -> RuleOutcome:
    return RuleOutcome(
        rule=rule,
        type="precondition",
        success=success,
        severity="critical",
        element_count=0,
        unexpected_count=0,
    )


def _write_checked(
    contract: DataContract, path: Path, staging: Path, key: bytes, findings_digest: str
) -> dict[str, int]:
    builder = FindingsBuilder(key, LicencePolicy(contract.licences))
    counts = {"train": 0, "heldout": 0}
    with _private(staging / TRAIN_FILE) as train, _private(staging / HELD_OUT_FILE) as heldout:
        files = {"train": train, "heldout": heldout}
        for record in _usable(read_records(path), builder):
            split = split_of(record.id)
            files[split].write(_line(record))
            counts[split] += 1
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    if builder.finish().digest != findings_digest:
        raise _changed("other findings than those that were checked")
    return counts


def _usable(
    rows: Iterator[DataRecord | UnreadableRow], builder: FindingsBuilder
) -> Iterator[DataRecord]:
    for row in rows:
        if builder.add(row) and isinstance(row, DataRecord):
            yield row


def _line(record: DataRecord) -> str:
    text = {"prompt": record.prompt, "answer": record.answer}
    return json.dumps(text, ensure_ascii=False, separators=(",", ":")) + "\n"


def _private(path: Path) -> TextIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return os.fdopen(descriptor, "w", encoding="utf-8", newline="\n")


def _changed(found: str) -> DataStewardError:
    return DataStewardError(
        "data set",
        expected="the very data that the contract was checked on",
        found=found,
        action="let nobody write the data file during a round, then start the round again",
    )


def _cannot_write(into: Path, error: OSError) -> SiloOperatorError:
    return SiloOperatorError(
        f"training splits in {into}",
        expected="room and permission to write them",
        found=error.strerror or type(error).__name__,
        action="free disk space or correct the permissions, then start the agent again",
    )
