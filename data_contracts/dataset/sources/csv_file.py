"""CSV as RFC 4180 has it: UTF-8, commas, double quotes, a header line, rows of equal length.

Semicolons, tabs or bars in place of commas are understood where the header has the wanted columns
with one of them and not with commas, or where the first line is Excel's `sep=`.

The file is cut into rows by the parity of its quotes, so that at most `MAX_EXAMPLE_BYTES` of a row
are in memory even when a quote is never closed. A quote inside an unquoted cell, which readers
understand differently, makes its row unreadable; so does a row with more or fewer cells than the
header. `row` counts from 1 after the header; blank lines count and are skipped.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, UnreadableRow
from data_contracts.dataset.sources.columns import Column, present_columns
from data_contracts.dataset.sources.data_source import DataUnavailableError
from data_contracts.dataset.sources.example_maker import RawRow, Rows
from data_contracts.dataset.sources.text_bytes import estimated_lines, opened_text

_DELIMITERS = (",", ";", "\t", "|")
_EXCEL = re.compile(rb"(?i:sep)=([,;\t|])\r?\n?")


def _row_pattern(delimiter: str) -> re.Pattern[str]:
    mark = re.escape(delimiter)
    cell = rf'(?:"(?:[^"]++|"")*+"|[^"{mark}\r\n]*+)'
    return re.compile(rf"{cell}(?:{mark}{cell})*+(?:\r?\n)?")


_RFC_4180_ROWS = {delimiter: _row_pattern(delimiter) for delimiter in _DELIMITERS}


class CsvFile:
    """The rows of one file; `columns` are those of the wanted columns that it has."""

    def __init__(self, path: Path, wanted: Sequence[Column], name: str) -> None:
        # The module's limit holds for the whole process; it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_EXAMPLE_BYTES))
        self._path, self._name = path, name
        with opened_text(path, name) as file:
            self._delimiter, self._header_lines, header = _header(file, wanted, name)
        self.columns = present_columns(wanted, header, name)
        self._positions = [header.index(column.name) for column in self.columns]
        self._width = len(header)

    def count_rows(self) -> int:
        """About how many rows the file has."""
        return max(0, estimated_lines(self._path, self._name) - self._header_lines)

    def rows(self) -> Rows:
        """Values of `columns` in every row, in order; raises OSError."""
        with opened_text(self._path, self._name) as file:
            pieces = _pieces(file)
            for _ in range(self._header_lines):
                next(pieces)
            for row, piece in enumerate(pieces, start=1):
                if not isinstance(piece, bytes):
                    yield UnreadableRow(row, piece)
                elif piece.strip(b"\r\n"):
                    yield self._row(row, piece)

    def _row(self, row: int, piece: bytes) -> RawRow | UnreadableRow:
        cells = _cells(piece, self._delimiter)
        if not isinstance(cells, list):
            return UnreadableRow(row, cells)
        if len(cells) != self._width:
            return UnreadableRow(row, "more or fewer cells than the header")
        return row, [cells[position] for position in self._positions]


def _header(file: BinaryIO, wanted: Sequence[Column], name: str) -> tuple[str, int, list[str]]:
    """What parts the cells, how many lines come before the first row, and the columns' names."""
    pieces = _pieces(file)
    piece = next(pieces, "no header line")
    lines = 1
    delimiters: tuple[str, ...] = _DELIMITERS
    if isinstance(piece, bytes) and (stated := _EXCEL.fullmatch(piece)) is not None:
        piece, lines, delimiters = next(pieces, "no header line"), 2, (stated[1].decode(),)
    if not isinstance(piece, bytes):
        raise DataUnavailableError(name, f"header line: {piece}")
    read = {delimiter: _cells(piece, delimiter) for delimiter in delimiters}
    needed = {column.name for column in wanted if column.is_needed}
    usable = [mark for mark, cells in read.items() if needed.issubset(cells)]
    delimiter = usable[0] if "," in usable or len(usable) == 1 else delimiters[0]
    cells = read[delimiter]
    if isinstance(cells, str):
        raise DataUnavailableError(name, f"header line: {cells}")
    return delimiter, lines, cells


def _pieces(file: BinaryIO) -> Iterator[bytes | str]:
    """The bytes of each row with its line end, or why there are none."""
    lines: list[bytes] = []
    size, is_open, is_too_long = 0, False, False
    while line := file.readline(MAX_EXAMPLE_BYTES + 1):
        size += len(line)
        is_open ^= line.count(b'"') % 2 == 1
        is_too_long = is_too_long or size > MAX_EXAMPLE_BYTES
        if is_too_long:
            lines.clear()
        else:
            lines.append(line)
        if line.endswith(b"\n") and not is_open:
            yield f"longer than {MAX_EXAMPLE_BYTES} bytes" if is_too_long else b"".join(lines)
            lines.clear()
            size, is_too_long = 0, False
    if is_open:
        yield "a quote that is not closed"
    elif size:
        yield f"longer than {MAX_EXAMPLE_BYTES} bytes" if is_too_long else b"".join(lines)


def _cells(piece: bytes, delimiter: str) -> list[str] | str:
    """The cells of one row, or why it has none."""
    if b"\0" in piece:
        return "a NUL byte"
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    if '"' in text and not _RFC_4180_ROWS[delimiter].fullmatch(text):
        return "a quote out of place"
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return "not CSV"
