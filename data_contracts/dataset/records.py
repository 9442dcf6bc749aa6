"""The records of a data set, read line by line; the only reader of raw text in this package.

A line that is not a record becomes an `UnreadableRow` with a reason and never an exception, so one
bad line cannot stop a check or hide the lines after it. At most one line is in memory, and of a
line longer than `MAX_LINE_BYTES` only the beginning.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from data_contracts.dataset.licence import NO_ASSERTION

MAX_LINE_BYTES = 1024 * 1024

_REQUIRED_TEXT = ("id", "subject", "prompt", "answer", "source")


@dataclass(frozen=True)
class DataRecord:
    """One record as the file states it; a missing licence reads as NOASSERTION."""

    row: int
    id: str
    subject: str
    prompt: str
    answer: str
    licence: str
    source: str


@dataclass(frozen=True)
class UnreadableRow:
    """A line (`row` counts from 1) that is not a record. `reason` quotes nothing from the line."""

    row: int
    reason: str


def read_records(path: Path) -> Iterator[DataRecord | UnreadableRow]:
    """Every non-blank line of a JSONL file, in order; raises OSError when it cannot be read."""
    with path.open("rb") as file:
        row = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            row += 1
            if len(line) > MAX_LINE_BYTES:
                _skip_rest_of_line(file, line)
                yield UnreadableRow(row, f"longer than {MAX_LINE_BYTES} bytes")
            elif line.strip():
                yield _record(row, line)


def _record(row: int, line: bytes) -> DataRecord | UnreadableRow:
    try:
        value = json.loads(line.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except UnicodeDecodeError:
        return UnreadableRow(row, "not UTF-8")
    except _DuplicateFieldError:
        return UnreadableRow(row, "a field twice")
    except (ValueError, RecursionError):
        return UnreadableRow(row, "not JSON")
    if not isinstance(value, dict):
        return UnreadableRow(row, "not a JSON object")
    for name in _REQUIRED_TEXT:
        if name not in value:
            return UnreadableRow(row, f"field {name} missing")
    licence = value.get("licence")
    texts = {name: value[name] for name in _REQUIRED_TEXT}
    texts["licence"] = NO_ASSERTION if licence is None else licence
    return _of_texts(row, texts)


def _of_texts(row: int, texts: dict[str, Any]) -> DataRecord | UnreadableRow:
    for name, text in texts.items():
        if not isinstance(text, str):
            return UnreadableRow(row, f"field {name} is not text")
        if not _is_encodable(text):
            return UnreadableRow(row, f"field {name} holds half a surrogate pair")
    if not texts["id"].strip() or not texts["subject"].strip():
        return UnreadableRow(row, "field id or subject is blank")
    return DataRecord(row=row, **texts)


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _skip_rest_of_line(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_LINE_BYTES)


class _DuplicateFieldError(ValueError):
    """A JSON object with one name twice, which two readers may read differently."""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _DuplicateFieldError
    return result
