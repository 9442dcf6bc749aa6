"""JSON Lines: one JSON object per line of UTF-8; or one JSON array of objects.

At most one record is in memory, and of a line longer than `MAX_EXAMPLE_BYTES` only the beginning.
`row` is the number of the line, or of the array's member; blank lines are skipped. What two readers
may read differently is refused: a name twice in one object, NaN and the infinities, bytes that are
not UTF-8.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, UnreadableRow
from data_contracts.dataset.sources.columns import Column
from data_contracts.dataset.sources.data_source import DataUnavailableError
from data_contracts.dataset.sources.example_maker import Rows
from data_contracts.dataset.sources.json_array import ArrayRefusedError, array_members
from data_contracts.dataset.sources.text_bytes import estimated_lines, opened_text
from data_contracts.protocol.strict_json import DuplicateNameError, distinct_names

_SPREAD = "one JSON object over several lines, where one on each line is expected"


class JsonlFile:
    """The rows of one file, which errors call `name`; a column that a line lacks is not stated by
    that line."""

    def __init__(self, path: Path, wanted: Sequence[Column], name: str = "") -> None:
        self._path, self._name = path, name or path.name
        self.columns = tuple(wanted)

    def count_rows(self) -> int:
        """About how many rows the file has."""
        return estimated_lines(self._path, self._name)

    def rows(self) -> Rows:
        """Values of `columns` in every record, in order; raises DataUnavailableError, OSError."""
        names = tuple(column.name for column in self.columns)
        with opened_text(self._path, self._name) as file:
            for row, value in self._records(file):
                if isinstance(value, dict):
                    yield row, [value.get(name) for name in names]
                else:
                    yield UnreadableRow(row, value)

    def _records(self, file: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | str]]:
        """Row and object of each record, or why it is none."""
        is_first = True
        for row, line in enumerate(_lines(file), start=1):
            if line is not None and line.isspace():
                continue
            if is_first and line is not None and line.lstrip()[:1] == b"[":
                yield from self._members(file, line)
                return
            if is_first and line is not None and line.strip() == b"{":
                raise DataUnavailableError(self._name, _SPREAD)
            is_first = False
            yield row, f"longer than {MAX_EXAMPLE_BYTES} bytes" if line is None else _parsed(line)

    def _members(
        self, file: BinaryIO, first_line: bytes
    ) -> Iterator[tuple[int, dict[str, Any] | str]]:
        row, reason = 0, ""
        try:
            for row, value in enumerate(array_members(_Rejoined(first_line, file), _DECODER), 1):
                yield row, value
        except ArrayRefusedError as refused:
            reason = str(refused)
        if reason:
            raise DataUnavailableError(self._name, reason, row=row + 1)


class _Rejoined:
    """A file whose beginning was read already."""

    def __init__(self, begin: bytes, file: BinaryIO) -> None:
        self._begin, self._file = begin, file

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        if not self._begin:
            return self._file.read(size)
        data, self._begin = self._begin[:size], self._begin[size:]
        return data


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Each line, or None for one that is too long and begins no array."""
    is_first = True
    while line := file.readline(MAX_EXAMPLE_BYTES + 1):
        if len(line) <= MAX_EXAMPLE_BYTES or (is_first and line.lstrip()[:1] == b"["):
            yield line
        else:
            _skip_rest_of_line(file, line)
            yield None
        is_first = False


def _parsed(line: bytes) -> dict[str, Any] | str:
    """The object in a line, or why there is none."""
    try:
        value = _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "not UTF-8"
    except DuplicateNameError:
        return "a field twice"
    except (ValueError, RecursionError):
        return "not JSON"
    return value if isinstance(value, dict) else "not a JSON object"


def _skip_rest_of_line(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_EXAMPLE_BYTES)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON (RFC 8259, section 6)")


_DECODER = json.JSONDecoder(object_pairs_hook=distinct_names, parse_constant=_no_constant)
