"""Arrow record batches become rows, a bounded amount of text at a time.

Guaranteed before a Python string is made: the lengths of all text cells are known, a record of
more than `MAX_EXAMPLE_BYTES` is not converted at all, and of the others at most
`TEXT_AT_A_TIME_BYTES` are. Columns of a type that no field takes are not converted either.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, UnreadableRow
from data_contracts.dataset.sources.columns import Column
from data_contracts.dataset.sources.example_maker import NOT_TEXT, RawRow, Rows

TEXT_AT_A_TIME_BYTES = 16 * 1024 * 1024
ROWS_AT_A_TIME = 2048


def is_readable_type(kind: Any) -> bool:
    """Whether cells of an Arrow type can be a field's value: text, numbers, booleans, null."""
    return bool(
        _is_text(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
    )


def arrow_rows(batch: Any, columns: Sequence[Column], first_row: int) -> Rows:
    """Values of `columns` in every row of a pyarrow RecordBatch that is known to be valid.

    A column that the batch lacks is one of another type than `is_readable_type` allows.
    """
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
    cells = [_cells(batch, column.name) for column in columns]
    yield from enumerate(zip(*cells, strict=True), start=first_row)


def _cells(batch: Any, name: str) -> list[Any]:
    position = batch.schema.get_field_index(name)
    if position < 0 or not is_readable_type(batch.schema.field(position).type):
        return [NOT_TEXT] * batch.num_rows
    array = batch.column(position)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary.take(array.indices)
    try:
        cells: list[Any] = array.to_pylist()
    except UnicodeDecodeError:
        return [_decoded(cell) for cell in array.view(_binary_type(array.type)).to_pylist()]
    return cells


def _decoded(cell: bytes | None) -> Any:
    try:
        return None if cell is None else cell.decode("utf-8")
    except UnicodeDecodeError:
        return NOT_TEXT


def _text_sizes(batch: Any) -> tuple[int, int]:
    """Bytes of text in the largest row, and in all rows together."""
    total = pa.nulls(0, pa.int64())
    for array in batch.columns:
        if _is_text(array.type):
            sizes = pc.fill_null(_cell_sizes(array), 0)
            total = pc.add(total, sizes) if len(total) else sizes
    return (pc.max(total).as_py(), pc.sum(total).as_py()) if len(total) else (0, 0)


def _cell_sizes(array: Any) -> Any:
    if pa.types.is_dictionary(array.type):
        return pc.binary_length(array.dictionary).cast(pa.int64()).take(array.indices)
    return pc.binary_length(array).cast(pa.int64())


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _binary_type(kind: Any) -> Any:
    return pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()
