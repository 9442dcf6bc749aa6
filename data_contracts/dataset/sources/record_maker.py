"""Values of a row become a record, or a reason why not.

Each field has one type: what is of another type, not finite, holds a NUL character or half a
surrogate pair makes the row unreadable. Nothing is guessed, with three exceptions that formats
need: whole numbers are ids and subjects where columns have types, CSV writes booleans and numbers
as text, and CSV's empty cell means that an optional field is not stated.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from data_contracts.dataset.licence_policy import NO_ASSERTION
from data_contracts.dataset.records import DataRecord, UnreadableRow
from data_contracts.dataset.sources.columns import Column
from data_contracts.dataset.sources.data_source import FIELD_TYPES, REQUIRED_FIELDS, SourceFormat

RawRow = tuple[int, Sequence[Any]]
"""Row number, and one value per column; None where nothing is stated."""

Rows = Iterator[RawRow | UnreadableRow]

_SPLITS = {"train": "train", "heldout": "heldout", "test": "heldout", "validation": "heldout"}
_BOOLEANS = {"true": True, "false": False}
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")
_IDENTIFIERS = ("id", "subject")


class _ValueRefusedError(Exception):
    """Why a value does not fit its field."""


class NotText:
    """Stands for a value that a reader did not convert, because no field takes its type."""


NOT_TEXT = NotText()


class RecordMaker:
    """Makes records of rows whose values come in the order of `columns`.

    `file_format` is that of the file (of an image-text set: of its metadata); `image_folder` is
    the resolved folder that images must lie in, for an image-text set only.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        file_format: SourceFormat,
        image_folder: Path | None = None,
    ) -> None:
        required = REQUIRED_FIELDS[file_format if image_folder is None else "image-text"]
        self._is_csv = file_format == "csv"
        self._has_typed_columns = file_format not in ("csv", "jsonl")
        self._image_folder = image_folder
        self._steps = [
            (column.field, self._converter(column.field), column.field in required)
            for column in columns
        ]
        self._labels = {column.field: column.label for column in columns}

    def records(self, rows: Rows) -> Iterator[DataRecord | UnreadableRow]:
        """The record, or the reason, of each row."""
        for row in rows:
            yield row if isinstance(row, UnreadableRow) else self.record(row[0], row[1])

    def record(self, row: int, values: Sequence[Any]) -> DataRecord | UnreadableRow:
        """The record of one row."""
        known: dict[str, Any] = {"licence": NO_ASSERTION}
        is_csv = self._is_csv
        field = ""
        try:
            for (field, convert, is_required), value in zip(self._steps, values, strict=True):
                if value is None or (is_csv and value == "" and not is_required):
                    if is_required:
                        raise _ValueRefusedError("missing")
                else:
                    known[field] = convert(value)
        except _ValueRefusedError as refused:
            return UnreadableRow(row, f"field {self._labels[field]} {refused}")
        if self._image_folder is not None:
            _complete_image_text(known, self._image_folder)
        if not known["id"].strip() or not known["subject"].strip():
            return UnreadableRow(row, "field id or subject is blank")
        return DataRecord(row, **known)

    def _converter(self, field: str) -> Callable[[Any], Any]:
        if field == "split":
            return _split
        if field == "image":
            return self._image
        if FIELD_TYPES[field] == "boolean":
            return _boolean_of_text if self._is_csv else _boolean
        if FIELD_TYPES[field] == "number":
            return _number_of_text if self._is_csv else _number
        return _identifier if field in _IDENTIFIERS and self._has_typed_columns else _text

    def _image(self, value: Any) -> Path:
        return _image_inside(_text(value), self._image_folder)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _ValueRefusedError("is not text")
    if "\0" in value:
        raise _ValueRefusedError("holds a NUL character")
    if not value.isascii() and not _is_encodable(value):
        raise _ValueRefusedError("holds half a surrogate pair")
    return value


def _is_encodable(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _identifier(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**40:
        return str(value)
    return _text(value)


def _split(value: Any) -> str:
    split = _SPLITS.get(_text(value))
    if split is None:
        raise _ValueRefusedError("is neither train nor heldout")
    return split


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _ValueRefusedError("is not true or false")
    return value


def _boolean_of_text(value: Any) -> bool:
    known = _BOOLEANS.get(value)
    if known is None:
        raise _ValueRefusedError("is not true or false")
    return known


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _ValueRefusedError("is not a number")
    try:
        number = float(value)
    except (OverflowError, ValueError):
        number = math.inf
    if not math.isfinite(number):
        raise _ValueRefusedError("is not a finite number")
    return number


def _number_of_text(value: Any) -> float:
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise _ValueRefusedError("is not a number")
    return _number(float(value))


def _image_inside(name: str, folder: Path | None) -> Path:
    if folder is None or not name or name.startswith("/") or ".." in name.split("/"):
        raise _ValueRefusedError("is not the name of a file inside the folder")
    try:
        path = (folder / name).resolve(strict=True)
        is_file = path.is_file()
    except (OSError, RuntimeError, ValueError):
        is_file = False
    if not is_file:
        raise _ValueRefusedError("names no file")
    if not path.is_relative_to(folder):
        raise _ValueRefusedError("lies outside the folder")
    return path


def _complete_image_text(known: dict[str, Any], folder: Path) -> None:
    """An image without an id of its own is known by its name, and stands for one subject."""
    name = known["image"].relative_to(folder).as_posix()
    known["prompt"] = ""
    known.setdefault("id", name)
    known.setdefault("subject", name)
    known.setdefault("source", known["id"])
