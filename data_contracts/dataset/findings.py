"""What is known about each record of a data set, without its text.

One streaming pass over the records fills a table with one row per record: everything that a
contract rule may look at, and nothing that could be read as the record. Ids and texts appear only
as HMAC-SHA256 under a key that never leaves the silo, so nobody else can test a guess against them.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from data_contracts.dataset.licence import NO_ASSERTION, LicencePolicy
from data_contracts.dataset.records import DataRecord, UnreadableRow

MIN_KEY_BYTES = 32
MAX_NOTES = 1000
HELD_OUT_ONE_IN = 5
"""Held-out share: one record in five."""

Split = Literal["train", "heldout"]

COLUMN_TYPES: dict[str, str] = {
    "record_id": "string",
    "subject_id": "string",
    "text_digest": "string",
    "licence": "string",
    "licence_allowed": "boolean",
    "prompt_characters": "Int64",
    "answer_characters": "Int64",
    "is_empty": "boolean",
    "is_duplicate": "boolean",
    "split": "string",
    "readable": "boolean",
}
"""Columns of the findings table, in order. An unreadable row has only record_id and readable."""


@dataclass(frozen=True)
class Findings:
    """Findings of one data set.

    `table` has the columns of COLUMN_TYPES. `licence_ids` counts records per licence id, in ids
    that may leave the silo. `notes` name rows and reasons and are for the silo operator only.
    """

    table: pd.DataFrame
    licence_ids: dict[str, int]
    notes: tuple[str, ...]
    digest: str


def split_of(record_id: str) -> Split:
    """Which split a record is in: by SHA-256 of its id, so it never moves between rounds."""
    first = hashlib.sha256(record_id.encode()).digest()[:8]
    return "heldout" if int.from_bytes(first) % HELD_OUT_ONE_IN == 0 else "train"


class FindingsBuilder:
    """Takes the records of one data set in order, then gives its findings."""

    def __init__(self, key: bytes, policy: LicencePolicy) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise ValueError(f"expected a findings key of {MIN_KEY_BYTES} bytes or more")
        self._key = key
        self._policy = policy
        self._columns: dict[str, list[object]] = {name: [] for name in COLUMN_TYPES}
        self._licence_ids: dict[str, int] = {}
        self._notes: list[str] = []
        self._unwritten_notes = 0
        self._texts: set[str] = set()
        self._digest = hmac.new(key, b"findings-v1\n", hashlib.sha256)

    def add(self, row: DataRecord | UnreadableRow) -> bool:
        """Append the finding of one row; True when the record may be trained on as far as it goes.

        That is: readable, its licence allowed, not empty, and not a repetition of an earlier one.
        """
        if isinstance(row, UnreadableRow):
            self._note(f"row {row.row}: unreadable, {row.reason}")
            self._count_licences((NO_ASSERTION,))
            self._append(record_id=self._keyed("row", str(row.row)), readable=False)
            return False
        licence = self._policy.judge(row.licence)
        self._count_licences(licence.ids)
        if not licence.allowed:
            self._note(f"row {row.row}: licence {row.licence[:80]!r} is not allowed")
        finding = self._of_text(row)
        self._append(readable=True, licence_allowed=licence.allowed, **finding)
        return licence.allowed and not finding["is_empty"] and not finding["is_duplicate"]

    def finish(self) -> Findings:
        """The findings of everything that was added."""
        series = {
            name: pd.Series(values, dtype=COLUMN_TYPES[name])
            for name, values in self._columns.items()
        }
        return Findings(
            table=pd.DataFrame(series),
            licence_ids=dict(sorted(self._licence_ids.items())),
            notes=(*self._notes, *self._rest_of_notes()),
            digest=self._digest.hexdigest(),
        )

    def _of_text(self, row: DataRecord) -> dict[str, object]:
        text_digest = self._keyed("text", row.prompt, row.answer)
        is_duplicate = text_digest in self._texts
        self._texts.add(text_digest)
        is_empty = not row.prompt.strip() or not row.answer.strip()
        if is_empty:
            self._note(f"row {row.row}: prompt or answer is empty")
        return {
            "record_id": self._keyed("id", row.id),
            "subject_id": self._keyed("subject", row.subject),
            "text_digest": text_digest,
            "licence": row.licence or NO_ASSERTION,
            "prompt_characters": len(row.prompt),
            "answer_characters": len(row.answer),
            "is_empty": is_empty,
            "is_duplicate": is_duplicate,
            "split": split_of(row.id),
        }

    def _count_licences(self, ids: tuple[str, ...]) -> None:
        for licence in ids:
            self._licence_ids[licence] = self._licence_ids.get(licence, 0) + 1

    def _note(self, note: str) -> None:
        if len(self._notes) < MAX_NOTES:
            self._notes.append(note)
        else:
            self._unwritten_notes += 1

    def _rest_of_notes(self) -> tuple[str, ...]:
        return (f"{self._unwritten_notes} more",) if self._unwritten_notes else ()

    def _append(self, **finding: object) -> None:
        ordered = [finding.get(name) for name in COLUMN_TYPES]
        for values, value in zip(self._columns.values(), ordered, strict=True):
            values.append(value)
        self._digest.update(_canonical(ordered))

    def _keyed(self, *parts: str) -> str:
        """HMAC over length-prefixed parts, so that two texts cannot be shifted into each other."""
        return hmac.new(self._key, _canonical(list(parts)), hashlib.sha256).hexdigest()


def collect_findings(
    rows: Iterable[DataRecord | UnreadableRow], key: bytes, policy: LicencePolicy
) -> Findings:
    """Findings of `rows`; `key` is the silo's own, at least MIN_KEY_BYTES long."""
    builder = FindingsBuilder(key, policy)
    for row in rows:
        builder.add(row)
    return builder.finish()


def _canonical(values: list[object]) -> bytes:
    """One byte string per list of values: each typed by its repr, with its length before it."""
    encoded = (repr(value).encode("utf-8", "surrogatepass") for value in values)
    return b"".join(b"%d:%b" % (len(item), item) for item in encoded) + b"\n"
