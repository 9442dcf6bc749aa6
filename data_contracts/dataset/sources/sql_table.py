"""The statement that reads a table: reflected columns, bounded rows, one order on every database.

Nothing of it is text made here: names go through SQLAlchemy's quoting, and the columns are those
that reflection found. A row of more than `MAX_EXAMPLE_BYTES` is measured by the database and sent
without its cells. Rows come in the order of `order_by`, of the id, and then of every other mapped
column, text compared by its bytes where the database can, so that the order does not depend on a
locale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    ColumnElement,
    Connection,
    Date,
    DateTime,
    Enum,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Select,
    String,
    Table,
    Text,
    Uuid,
    case,
    cast,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import BIT, CITEXT, DOMAIN
from sqlalchemy.types import NullType, TypeEngine

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES
from data_contracts.dataset.sources.chat import conversation_fields
from data_contracts.dataset.sources.columns import Column, present_columns
from data_contracts.dataset.sources.data_source import DataUnavailableError


@dataclass(frozen=True, slots=True)
class SqlCell:
    """How one column is read: `value` in SQL, and what its driver's values stand for."""

    value: ColumnElement[Any]
    is_text: bool
    is_boolean: bool
    is_number: bool


@dataclass(frozen=True, slots=True)
class SqlPlan:
    """`statement` selects the size of a row in bytes, then one value per column of `columns`."""

    statement: Select[Any]
    columns: tuple[Column, ...]
    cells: tuple[SqlCell, ...]


def reflected(connection: Connection, name: str) -> Table:
    """The table `table` or `schema.table`, without those that it refers to."""
    schema, _, table = name.rpartition(".")
    return Table(
        table, MetaData(), schema=schema or None, autoload_with=connection, resolve_fks=False
    )


def plan_of(
    connection: Connection, name: str, wanted: Sequence[Column], order_by: str | None
) -> SqlPlan:
    """How to read `wanted`; raises DataUnavailableError when a column is not there."""
    table = reflected(connection, name)
    columns = present_columns(wanted, table.columns.keys(), name)
    if order_by is not None and order_by not in table.columns:
        raise DataUnavailableError(name, f"column {order_by} missing (order)")
    dialect, conversations = connection.dialect.name, conversation_fields(columns)
    cells = tuple(
        _cell(table.columns[column.name], dialect, takes_json=column.field in conversations)
        for column in columns
    )
    size = _row_size(cells, dialect)
    values = [_unless_too_large(cell, size, dialect) for cell in cells]
    statement = select(size, *values).order_by(*_order(table, columns, order_by, dialect))
    return SqlPlan(statement, columns, cells)


def _cell(column: Any, dialect: str, *, takes_json: bool = False) -> SqlCell:
    """On SQLite a cell has a type of its own, whatever the column says. JSON is read as its text,
    for a field that takes a conversation."""
    kind = _base(column.type)
    is_boolean = isinstance(kind, Boolean)
    is_number = isinstance(kind, Integer | Numeric)
    is_plain_text = isinstance(kind, String) and not isinstance(kind, Enum)
    if dialect == "sqlite" or is_boolean or is_number or is_plain_text:
        value = type_coerce(column, NullType())
        return SqlCell(value, True, is_boolean, is_number and dialect != "sqlite")
    if isinstance(kind, DateTime | Date) and dialect == "postgresql":
        return SqlCell(type_coerce(_stamp(column, kind), NullType()), True, False, False)
    is_text = isinstance(kind, Enum | Uuid | CITEXT | BIT | DateTime | Date)
    is_text = is_text or (takes_json and isinstance(kind, JSON))
    return SqlCell(type_coerce(cast(column, Text), NullType()), is_text, False, False)


def _stamp(column: Any, kind: TypeEngine[Any]) -> ColumnElement[Any]:
    """A date, or an instant in UTC where it has a zone, whatever the session is set to."""
    if isinstance(kind, Date):
        return func.to_char(column, literal("YYYY-MM-DD"))
    if not getattr(kind, "timezone", False):
        return func.to_char(column, literal('YYYY-MM-DD"T"HH24:MI:SS.US'))
    return func.to_char(
        func.timezone(literal("UTC"), column), literal('YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"')
    )


def _base(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    return _base(kind.data_type) if isinstance(kind, DOMAIN) else kind


def _row_size(cells: Sequence[SqlCell], dialect: str) -> ColumnElement[int]:
    size: ColumnElement[int] = literal(0)
    for cell in cells:
        if _is_measured(cell, dialect):
            size = size + func.coalesce(_byte_size(cell.value, dialect), 0)
    return size


def _byte_size(value: ColumnElement[Any], dialect: str) -> ColumnElement[int]:
    if dialect == "sqlite":
        return func.length(cast(value, LargeBinary), type_=Integer())
    return func.octet_length(value, type_=Integer())


def _unless_too_large(cell: SqlCell, size: ColumnElement[int], dialect: str) -> ColumnElement[Any]:
    if not _is_measured(cell, dialect):
        return cell.value
    return type_coerce(case((size <= MAX_EXAMPLE_BYTES, cell.value)), NullType())


def _is_measured(cell: SqlCell, dialect: str) -> bool:
    return dialect == "sqlite" or not (cell.is_number or cell.is_boolean)


def _order(
    table: Table, columns: Sequence[Column], order_by: str | None, dialect: str
) -> list[ColumnElement[Any]]:
    by_field = {column.field: column.name for column in columns}
    names = [order_by or by_field["id"], by_field["id"], *sorted(by_field.values())]
    keys = (_order_key(table.columns[name], dialect) for name in dict.fromkeys(names))
    return list(keys)


def _order_key(column: Any, dialect: str) -> ColumnElement[Any]:
    if dialect != "postgresql":
        return column.asc()  # type: ignore[no-any-return]
    cell = _cell(column, dialect)
    key = column if cell.is_number or cell.is_boolean else cast(column, Text).collate("C")
    # PostgreSQL sorts NULL last where SQLite and MySQL sort it first.
    return key.nulls_first() if column.nullable else key.asc()
