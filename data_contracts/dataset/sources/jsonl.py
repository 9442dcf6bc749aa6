"""JSON Lines: one JSON object per line of UTF-8.

At most one line is in memory, and of a line longer than `MAX_RECORD_BYTES` only the beginning.
`row` is the number of the line; blank lines are skipped. What two readers may read differently is
refused: a name twice in one object, NaN and the infinities, bytes that are not UTF-8.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from data_contracts.dataset.records import MAX_RECORD_BYTES, UnreadableRow
from data_contracts.dataset.sources.columns import Column
from data_contracts.dataset.sources.record_maker import Rows
from data_contracts.protocol.strict_json import DuplicateNameError, distinct_names

_SAMPLE_BYTES = 1024 * 1024


class JsonlFile:
    """The rows of one file; a column that a line lacks is not stated by that line."""

    def __init__(self, path: Path, wanted: Sequence[Column]) -> None:
        self._path = path
        self.columns = tuple(wanted)

    def count_rows(self) -> int:
        """About how many rows the file has."""
        return estimated_lines(self._path)

    def rows(self) -> Rows:
        """Values of `columns` in every non-blank line, in order; raises OSError."""
        names = tuple(column.name for column in self.columns)
        with self._path.open("rb") as file:
            for row, line in enumerate(_lines(file), start=1):
                if line is None:
                    yield UnreadableRow(row, f"longer than {MAX_RECORD_BYTES} bytes")
                elif not line.isspace():
                    value = _parsed(line)
                    if isinstance(value, dict):
                        yield row, [value.get(name) for name in names]
                    else:
                        yield UnreadableRow(row, value)


def estimated_lines(path: Path) -> int:
    """Lines of a file, exact up to `_SAMPLE_BYTES` and from the average length beyond them."""
    size = path.stat().st_size
    with path.open("rb") as file:
        sample = file.read(_SAMPLE_BYTES)
    lines = sample.count(b"\n") + (not sample.endswith(b"\n") and bool(sample))
    return lines if len(sample) == size else max(lines, lines * size // max(len(sample), 1))


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Each line, or None for one that is too long."""
    while line := file.readline(MAX_RECORD_BYTES + 1):
        if len(line) <= MAX_RECORD_BYTES:
            yield line
        else:
            _skip_rest_of_line(file, line)
            yield None


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
        line = file.readline(MAX_RECORD_BYTES)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON (RFC 8259, section 6)")


_DECODER = json.JSONDecoder(object_pairs_hook=distinct_names, parse_constant=_no_constant)
