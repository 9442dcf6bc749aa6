"""Where the columns of a Parquet file lie, read from its footer (parquet-format, parquet.thrift).

pyarrow's own accessors of column metadata end the whole process when some of the footer is damaged
(no C++ exception of theirs is caught), so the few numbers that are needed are read here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data_contracts.dataset.sources.thrift_compact import (
    CompactReader,
    Struct,
    ThriftRefusedError,
    Wanted,
)

MAX_FOOTER_BYTES = 64 * 1024 * 1024
_MAGIC = b"PAR1"

_ROW_GROUPS = 4
_COLUMNS, _NUM_ROWS = 1, 3
_META_DATA = 3
_PATH, _COMPRESSED_SIZE, _DATA_OFFSET, _DICTIONARY_OFFSET = 3, 7, 9, 11
_CHUNK: Wanted = {_PATH: {}, _COMPRESSED_SIZE: {}, _DATA_OFFSET: {}, _DICTIONARY_OFFSET: {}}
_FILE: Wanted = {_ROW_GROUPS: {_COLUMNS: {_META_DATA: _CHUNK}, _NUM_ROWS: {}}}


class FooterRefusedError(Exception):
    """Why a footer is not used; quotes nothing from the data."""


@dataclass(frozen=True, slots=True)
class ColumnChunk:
    """Bytes of one column in one row group."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class RowGroup:
    """`chunks` by the name of the column; of a nested one, the parts by their path."""

    rows: int
    chunks: dict[str, ColumnChunk]
    parts: dict[str, dict[str, ColumnChunk]]

    def chunks_of(self, name: str) -> dict[str, ColumnChunk]:
        """All that a column consists of, by path; empty where there is no such column."""
        flat = {name: self.chunks[name]} if name in self.chunks else {}
        return flat | self.parts.get(name, {})


def row_groups_of(path: Path) -> tuple[RowGroup, ...]:
    """The row groups of a file, in order; raises FooterRefusedError or OSError."""
    with path.open("rb") as file:
        data = _footer(file)
    try:
        groups = CompactReader(data).struct(_FILE).get(_ROW_GROUPS, [])
        return tuple(_row_group(group) for group in _structs(groups))
    except (ThriftRefusedError, IndexError, UnicodeDecodeError):
        reason = "a damaged footer"
    raise FooterRefusedError(reason)


def _footer(file: BinaryIO) -> bytes:
    size = file.seek(0, 2)
    file.seek(max(0, size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or length > min(size - 8, MAX_FOOTER_BYTES):
        raise FooterRefusedError("not a Parquet file that is complete and not encrypted")
    file.seek(size - 8 - length)
    return file.read(length)


def _row_group(group: Struct) -> RowGroup:
    chunks: dict[str, ColumnChunk] = {}
    parts: dict[str, dict[str, ColumnChunk]] = {}
    for column in _structs(group.get(_COLUMNS, [])):
        details = column.get(_META_DATA)
        if not isinstance(details, dict):
            raise FooterRefusedError("an encrypted column")
        path = details.get(_PATH)
        names = [name.decode("utf-8") for name in _names(path)]
        if len(names) == 1:
            chunks[names[0]] = _column_chunk(details)
        elif names:
            parts.setdefault(names[0], {})[".".join(names)] = _column_chunk(details)
    return RowGroup(_number(group, _NUM_ROWS), chunks, parts)


def _names(path: object) -> list[bytes]:
    names = path if isinstance(path, list) else []
    return names if all(isinstance(name, bytes) for name in names) else []


def _column_chunk(details: Struct) -> ColumnChunk:
    """Writers leave the dictionary's offset out, or at 0, where there is none."""
    start = _number(details, _DATA_OFFSET)
    if dictionary := details.get(_DICTIONARY_OFFSET):
        start = min(start, dictionary) if isinstance(dictionary, int) and dictionary > 0 else start
    return ColumnChunk(start, _number(details, _COMPRESSED_SIZE))


def _structs(members: object) -> Iterator[Struct]:
    for member in members if isinstance(members, list) else [members]:
        if not isinstance(member, dict):
            raise ThriftRefusedError
        yield member


def _number(struct: Struct, field: int) -> int:
    number = struct.get(field)
    if not isinstance(number, int) or number < 0:
        raise ThriftRefusedError
    return number
