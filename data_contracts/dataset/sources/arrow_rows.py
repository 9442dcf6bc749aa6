"""Arrow record batches become rows, a bounded amount of text at a time.

Guaranteed before a Python string is made: the lengths of all text cells are known, a record of
more than `MAX_EXAMPLE_BYTES` is not converted at all, and of the others at most
`TEXT_AT_A_TIME_BYTES` are. Text may be of any Arrow string or binary type, or a dictionary of one;
an extension is what it is stored as. A conversation may be a list of structs. A column of a type
that no field takes, or not its field, is refused once, before the first row.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, UnreadableRow
from data_contracts.dataset.sources.arrow_messages import (
    holds_binary,
    is_list_of_messages,
    row_sizes,
)
from data_contracts.dataset.sources.chat import conversation_fields
from data_contracts.dataset.sources.columns import Column
from data_contracts.dataset.sources.data_source import DataUnavailableError
from data_contracts.dataset.sources.example_maker import RawRow, Rows
from data_contracts.dataset.sources.field_values import NOT_TEXT, takes_text_only

TEXT_AT_A_TIME_BYTES = 16 * 1024 * 1024
ROWS_AT_A_TIME = 2048
_LONGEST_TYPE = 60

_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)
_OTHER_TYPES = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_boolean,
    pa.types.is_timestamp,
    pa.types.is_date,
    pa.types.is_null,
)


def refuse_types(schema: Any, columns: Sequence[Column], name: str) -> None:
    """Raise DataUnavailableError for a column whose type its field does not take."""
    conversations = conversation_fields(columns)
    for column in columns:
        kind = schema.field(column.name).type
        plain = _stored(kind)
        if _is_text(plain) or pa.types.is_null(plain):
            continue
        if column.field in conversations and is_list_of_messages(plain):
            continue
        if not any(is_type(plain) for is_type in _OTHER_TYPES) or takes_text_only(column.field):
            reason = f"column {column.name} of type {str(kind)[:_LONGEST_TYPE]}"
            hint = ", where its field takes none"
            if takes_text_only(column.field):
                hint = ", where its field takes text"
            if pa.types.is_nested(plain):
                hint += " (a conversation is a list of structs with role and content, or JSON text)"
            raise DataUnavailableError(name, f"{reason}{hint}")


def arrow_rows(batch: Any, columns: Sequence[Column], first_row: int) -> Rows:
    """Values of `columns` in every row of a pyarrow RecordBatch that is known to be valid."""
    for start in range(0, batch.num_rows, ROWS_AT_A_TIME):
        piece = batch.slice(start, ROWS_AT_A_TIME)
        yield from _bounded_rows(piece, columns, first_row + start)


def _bounded_rows(batch: Any, columns: Sequence[Column], first_row: int) -> Rows:
    largest, total = _text_sizes(batch)
    if largest <= MAX_EXAMPLE_BYTES and total <= TEXT_AT_A_TIME_BYTES:
        yield from _rows(batch, columns, first_row)
    elif batch.num_rows == 1:
        yield UnreadableRow(first_row, f"longer than {MAX_EXAMPLE_BYTES} bytes")
    else:
        half = batch.num_rows // 2
        yield from _bounded_rows(batch.slice(0, half), columns, first_row)
        yield from _bounded_rows(batch.slice(half), columns, first_row + half)


def _rows(batch: Any, columns: Sequence[Column], first_row: int) -> Iterator[RawRow]:
    cells = [_cells(batch.column(column.name)) for column in columns]
    yield from enumerate(zip(*cells, strict=True), start=first_row)


def _cells(array: Any) -> list[Any]:
    array = _plain(array)
    if pa.types.is_timestamp(array.type):
        # Python knows microseconds; an instant is the same in UTC, whose zone is always known.
        unit = "us" if array.type.unit == "ns" else array.type.unit
        zone = None if array.type.tz is None else "UTC"
        array = array.cast(pa.timestamp(unit, zone), safe=False)
    if _is_text(array.type):
        return _texts(array)
    try:
        cells: list[Any] = array.to_pylist()
    except (ValueError, OverflowError):
        cells = [_value(cell) for cell in array]
    return list(map(_with_text, cells)) if holds_binary(array.type) else cells


def _texts(array: Any) -> list[Any]:
    try:
        cells: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        cells = [scalar.as_buffer().to_pybytes() if scalar.is_valid else None for scalar in array]
    return [_decoded(cell) if isinstance(cell, bytes) else cell for cell in cells]


def _with_text(value: Any) -> Any:
    """A list of messages whose texts are in columns of a binary type."""
    if isinstance(value, list):
        return list(map(_with_text, value))
    if isinstance(value, dict):
        return {name: _with_text(each) for name, each in value.items()}
    return _decoded(value) if isinstance(value, bytes) else value


def _value(scalar: Any) -> Any:
    """A date or an instant beyond Python's calendar is no value."""
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return NOT_TEXT


def _decoded(cell: bytes) -> Any:
    try:
        return cell.decode("utf-8")
    except UnicodeDecodeError:
        return NOT_TEXT


def _plain(array: Any) -> Any:
    """Without extensions and dictionaries; its cells have been measured."""
    if isinstance(array.type, pa.BaseExtensionType):
        return _plain(array.storage)
    if pa.types.is_dictionary(array.type):
        return _plain(array.dictionary).take(array.indices)
    return array


def _text_sizes(batch: Any) -> tuple[int, int]:
    """Bytes of text in the largest row, and in all rows together."""
    total = pa.nulls(0, pa.int64())
    for array in batch.columns:
        stored = _stored(array.type)
        if _is_text(stored) or pa.types.is_nested(stored):
            sizes = pc.fill_null(_cell_sizes(array), 0)
            total = pc.add(total, sizes) if len(total) else sizes
    return (pc.max(total).as_py(), pc.sum(total).as_py()) if len(total) else (0, 0)


def _text_cell_sizes(array: Any) -> Any | None:
    """As `_cell_sizes`; None where cells are no text."""
    return _cell_sizes(array) if _is_text(_stored(array.type)) else None


def _cell_sizes(array: Any) -> Any:
    if is_list_of_messages(array.type):
        return pa.array(row_sizes(array, _text_cell_sizes), pa.int64())
    if isinstance(array.type, pa.BaseExtensionType):
        return _cell_sizes(array.storage)
    if pa.types.is_dictionary(array.type):
        return _cell_sizes(array.dictionary).take(array.indices)
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        lengths = [len(s.as_buffer()) if s.is_valid else None for s in array]
        return pa.array(lengths, pa.int64())
    return pc.binary_length(array).cast(pa.int64())


def _stored(kind: Any) -> Any:
    """The type of the values themselves."""
    if isinstance(kind, pa.BaseExtensionType):
        return _stored(kind.storage_type)
    return _stored(kind.value_type) if pa.types.is_dictionary(kind) else kind


def _is_text(kind: Any) -> bool:
    return any(is_type(kind) for is_type in _TEXT_TYPES)
