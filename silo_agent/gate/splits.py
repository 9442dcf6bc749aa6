"""The two files that training reads, written from the very records that the gate allowed.

The findings table says which rows may be used and in which split; the data are read again for
their text, and refused when their content is no longer what was checked, or when other numbers of
records come out than the outcome counted. Files that were written for the same findings, and are
still the same bytes, are used again.
"""

import json
import os
import shutil
import sqlite3
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TextIO

import numpy as np
import rfc8785

from data_contracts.dataset.contract.canaries import Canaries
from data_contracts.dataset.examples import Example
from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.dataset.forms.form import Form
from data_contracts.dataset.sources.data_source import DataUnavailableError
from data_contracts.errors import DataStewardError, SiloOperatorError
from data_contracts.protocol.artifact import artifact_of_file
from infra.disk.durable_files import private_file, write_durably
from silo_agent.gate.outcome import GateOutcome
from silo_agent.gate.silo_data import SiloData
from silo_agent.leaks.canaries import planted_lines, reference_lines

TRAIN_FILE = "train.jsonl"
HELD_OUT_FILE = "heldout.jsonl"
UNITS_FILE = "train.units"
CANARIES_FILE = "canaries.jsonl"
MADE_FOR_FILE = "made-for.json"
STAGING = ".splits"
LINES_VERSION = 1
"""Raised whenever records of a form are written otherwise."""
OLDEST_FORM = "instruction"
SHARDS = "shards"
"""Directory beside the files for what training makes of them: it goes with them."""


@dataclass(frozen=True)
class Splits:
    """Training and held-out records as the data gate wrote them; made from a findings digest.

    The last training records are planted `canaries`, where the contract has any.
    """

    train: Path
    heldout: Path
    canaries: Canaries | None = None

    @property
    def reference_canaries(self) -> Path:
        """Each planted canary once, then the candidates that they are held against."""
        return self.train.with_name(CANARIES_FILE)

    @property
    def units(self) -> Path:
        """Which training records are of one subject: for each its subject's number, little-endian
        uint32, counted from 0 in the order in which subjects come first. Nothing of their names."""
        return self.train.with_name(UNITS_FILE)

    @property
    def shards(self) -> Path:
        """Where training keeps the tokens of both."""
        return self.train.with_name(SHARDS)


def forget_unused_splits(into: Path, retention: timedelta) -> None:
    """Delete the splits, and their tokens, when no training has read them for `retention`."""
    shutil.rmtree(into / STAGING, ignore_errors=True)
    files = [path for path in into.glob("*") if path.is_file()]
    used = max((path.stat().st_mtime for path in files), default=None)
    if used is not None and used < time.time() - retention.total_seconds():
        shutil.rmtree(into, ignore_errors=True)


def write_splits(
    outcome: GateOutcome,
    findings: Path,
    data: SiloData,
    into: Path,
    keyed: Keyed,
    canaries: Canaries | None = None,
) -> Splits:
    """Write train.jsonl, train.units and heldout.jsonl (a line of its form for each record, mode
    0600) into `into`.

    Records keep the order of the data; behind those that are trained on come the canaries of the
    contract, which are no records of the outcome, with canaries.jsonl beside them. `keyed` is by
    the key of the findings: canaries are drawn by it, and a picture is named with the digest of the
    bytes that were checked, and no other. Raises DataStewardError, and
    leaves neither file, when the data are no longer those of `outcome`.
    """
    files = Splits(into / TRAIN_FILE, into / HELD_OUT_FILE, canaries)
    if _were_made_for(outcome, files, into, data):
        return files
    staging = into / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        (into / MADE_FOR_FILE).unlink(missing_ok=True)
        _remove(files.shards)
        staging.mkdir(parents=True, mode=0o700)
        files.reference_canaries.unlink(missing_ok=True)
        planted = None if canaries is None else _Planted(canaries, keyed)
        _write(outcome, _checked(data, findings, keyed), data, staging, planted)
        for path in sorted(staging.iterdir()):
            path.replace(into / path.name)
        made_for = _made_for(outcome, files, data)
        write_durably(into / MADE_FOR_FILE, made_for)
    except DataUnavailableError as error:
        raise _changed(error.reason) from None
    except sqlite3.Error:
        raise _changed("a findings table that cannot be read") from None
    except OSError as error:
        raise _cannot_write(into, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return files


def _remove(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def _were_made_for(outcome: GateOutcome, files: Splits, into: Path, data: SiloData) -> bool:
    marker = into / MADE_FOR_FILE
    try:
        if marker.read_bytes() != _made_for(outcome, files, data):
            return False
        marker.touch()
    except OSError:
        return False
    return True


def _made_for(outcome: GateOutcome, files: Splits, data: SiloData) -> bytes:
    """What the files were written from and what they are, as the marker keeps it."""
    paths = [files.train, files.heldout, files.units]
    paths += [files.reference_canaries] if files.canaries else []
    digests = [artifact_of_file(path).digest for path in paths]
    # Prompts with answers are marked as they were before there were other forms.
    form = data.source.record_form
    of_form: list[str | int] = [] if form.name == OLDEST_FORM else [form.name, LINES_VERSION]
    # Lines about pictures name them by their whole path, which the digests of the data leave out.
    of_form += [str(data.root.path.resolve())] if "image" in form.fields else []
    of_form += [files.canaries.model_dump_json()] if files.canaries else []
    return rfc8785.dumps([outcome.findings_digest, *digests, *of_form])


@dataclass(frozen=True)
class _Planted:
    """Canaries, and the silo's key that they are drawn by."""

    terms: Canaries
    keyed: Keyed

    def write(self, form: Form, train: TextIO, reference: Path, units: "array[int]") -> None:
        """Behind the training records, each canary with a unit of its own."""
        first = max(units, default=-1) + 1
        for place, line in enumerate(planted_lines(self.terms, form, self.keyed)):
            train.write(line)
            units.append(first + place % self.terms.number)
        with _private(reference) as file:
            file.writelines(reference_lines(self.terms, form, self.keyed))


def _write(
    outcome: GateOutcome,
    records: "_Checked",
    data: SiloData,
    staging: Path,
    planted: _Planted | None,
) -> None:
    form = data.source.record_form
    if data.content_digest() != outcome.content_digest:
        raise _changed("other content than what was checked")
    units = array("I")
    with _private(staging / TRAIN_FILE) as train, _private(staging / HELD_OUT_FILE) as heldout:
        files = {"train": train, "heldout": heldout}
        written = {"train": 0, "heldout": 0}
        subjects: dict[str, int] = {}
        for record, split in records:
            files[split].write(_line(form, record))
            written[split] += 1
            if split == "train":
                units.append(subjects.setdefault(record.subject, len(subjects)))
        if planted is not None:
            planted.write(form, train, staging / CANARIES_FILE, units)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    with private_file(staging / UNITS_FILE) as of_units:
        of_units.write(np.array(units, "<u4").tobytes())
    if data.content_digest() != outcome.content_digest:
        raise _changed("content that changed while it was read")
    if written != {"train": outcome.train_records, "heldout": outcome.heldout_records}:
        raise _changed("another number of records than was counted")


def _checked(data: SiloData, findings: Path, keyed: Keyed) -> "_Checked":
    """Usable records with their split; both files come in the order of the data, so one walk finds
    every one."""
    from data_contracts.dataset.findings.store import usable_rows

    usable = usable_rows(findings)
    wanted = next(usable, None)
    for record in data.records():
        if wanted is None:
            return
        if record.row == wanted.row and isinstance(record, Example):
            yield _with_picture(record, wanted.image_digest, data, keyed), wanted.split
            wanted = next(usable, None)


_Checked = Iterator[tuple[Example, str]]


def _with_picture(record: Example, checked: str | None, data: SiloData, keyed: Keyed) -> Example:
    """The record with the digest of its picture, which has to be that of the check."""
    if record.image is None:
        return record
    found = data.digests.artifact(record.image).digest
    if checked is None or keyed("image", found) != checked:
        raise _changed(f"other bytes in the picture of row {record.row}")
    return replace(record, image_sha256=found)


def _line(form: Form, record: Example) -> str:
    return json.dumps(form.line(record), ensure_ascii=False, separators=(",", ":")) + "\n"


def _private(path: Path) -> TextIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    return os.fdopen(descriptor, "w", encoding="utf-8", newline="\n")


def _changed(found: str) -> DataStewardError:
    return DataStewardError(
        "data set",
        expected="the very data that the contract was checked on",
        found=found,
        action="let nobody write the data during a round, then start the round again",
    )


def _cannot_write(into: Path, error: OSError) -> SiloOperatorError:
    return SiloOperatorError(
        f"training splits in {into}",
        expected="room and permission to write them",
        found=error.strerror or type(error).__name__,
        action="free disk space or correct the permissions, then start the agent again",
    )
