"""A table of a database, read through SQLAlchemy as a stream, and the digest of its content.

Guaranteed: the connection reads only (PostgreSQL: a read-only transaction with one snapshot;
SQLite: a file opened for reading); at most `ROWS_PER_FETCH` rows are held; values come as the
driver gives them, so no conversion can fail on a value and quote it; an error says what failed and
its SQLSTATE, and never the URL, a statement or a value.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, func, make_url, select
from sqlalchemy.exc import NoSuchTableError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, UnreadableRow
from data_contracts.dataset.sources.columns import Column, columns_of
from data_contracts.dataset.sources.data_source import DataSource, DataUnavailableError
from data_contracts.dataset.sources.example_maker import Rows
from data_contracts.dataset.sources.field_values import NOT_TEXT
from data_contracts.dataset.sources.places import described_fault
from data_contracts.dataset.sources.sql_table import SqlCell, SqlPlan, plan_of, reflected

ROWS_PER_FETCH = 100
CONNECT_SECONDS = 10
_DIGEST_VERSION = b"consortia/sql-content/v1"


class SqlTable:
    """The rows of one table; `columns` are those of the wanted columns that it has."""

    def __init__(
        self, name: str, wanted: Sequence[Column], order_by: str | None, connection: str | None
    ) -> None:
        self._name = name
        self._order_by = order_by
        self._engine = _engine(connection, name)
        with self._connected() as database:
            self.columns = plan_of(database, name, wanted, order_by).columns

    def count_rows(self) -> int:
        """Rows of the table now."""
        with self._connected() as database:
            table = reflected(database, self._name)
            return int(database.execute(select(func.count()).select_from(table)).scalar_one())

    def rows(self) -> Rows:
        """Values of `columns` in every row, in order."""
        with self._connected() as database:
            plan = plan_of(database, self._name, self.columns, self._order_by)
            for row, (size, *values) in enumerate(_fetched(database, plan), start=1):
                if size > MAX_EXAMPLE_BYTES:
                    yield UnreadableRow(row, f"longer than {MAX_EXAMPLE_BYTES} bytes")
                else:
                    yield row, [_value(cell, v) for cell, v in zip(plan.cells, values, strict=True)]

    def content_digest(self) -> str:
        """SHA-256 (hexadecimal) over every row; a row that is too large counts with its size."""
        digest = hashlib.sha256(_DIGEST_VERSION)
        for column in self.columns:
            digest.update(_encoded(column.field) + _encoded(column.name))
        count = 0
        with self._connected() as database:
            plan = plan_of(database, self._name, self.columns, self._order_by)
            for size, *values in _fetched(database, plan):
                count += 1
                plain = (_plain(cell, v) for cell, v in zip(plan.cells, values, strict=True))
                excess = size if size > MAX_EXAMPLE_BYTES else 0
                digest.update(b"".join((_encoded(excess), *map(_encoded, plain))))
        digest.update(_encoded(count))
        return digest.hexdigest()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A connection that only reads; every fault inside is a DataUnavailableError."""
        is_connected = False
        try:
            with self._engine.connect() as database:
                is_connected = True
                yield _read_only(database)
                return
        except NoSuchTableError:
            reason = "no such table"
        except SQLAlchemyError as error:
            doing = "reading ended" if is_connected else "no connection to the database"
            reason = f"{doing} ({_identity(error)})"
        raise DataUnavailableError(self._name, reason)


def sql_content_digest(source: DataSource, connection: str | None) -> str:
    """SHA-256 of a table's mapped columns; raises DataUnavailableError.

    The encoding is canonical and length-prefixed: the same rows have the same digest on SQLite and
    on PostgreSQL, and no two different tables have the same encoding.
    """
    name = source.table or ""
    try:
        table = SqlTable(name, columns_of(source), source.order_by, connection)
        return table.content_digest()
    except Exception as error:  # a driver's exception of any class may quote a value
        fault = described_fault(error, name)
    raise DataUnavailableError(*fault)


def _engine(connection: str | None, name: str) -> Engine:
    if connection is None:
        raise DataUnavailableError(name, "no connection to a database is configured")
    try:
        url = make_url(connection)
        options = {"poolclass": NullPool, "hide_parameters": True}
        if url.drivername in ("sqlite", "sqlite+pysqlite"):
            return create_engine(url, creator=lambda: _sqlite(url), **options)
        if url.get_backend_name() == "postgresql":
            options["connect_args"] = {"connect_timeout": CONNECT_SECONDS}
        return create_engine(url, **options)
    except (SQLAlchemyError, ImportError, ValueError, TypeError):
        reason = "the configured connection is not a database URL with an installed driver"
    raise DataUnavailableError(name, reason)


def _sqlite(url: URL) -> sqlite3.Connection:
    """SQLite would create a file that is absent, and give up on a cell that is not UTF-8."""
    location = f"file:{quote(url.database or '')}?mode=ro"
    connection = sqlite3.connect(location, uri=True, check_same_thread=False)
    connection.text_factory = _sqlite_text
    return connection


def _sqlite_text(data: bytes) -> str | bytes:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


def _read_only(database: Connection) -> Connection:
    if database.dialect.name != "postgresql":
        return database
    return database.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _fetched(database: Connection, plan: SqlPlan) -> Iterator[Sequence[Any]]:
    streamed = database.execution_options(yield_per=ROWS_PER_FETCH)
    yield from streamed.execute(plan.statement)


def _value(cell: SqlCell, value: Any) -> Any:
    if value is not None and not cell.is_text:
        return NOT_TEXT
    return _plain(cell, value)


def _plain(cell: SqlCell, value: Any) -> Any:
    """SQLite has no booleans: a column declared so holds 0 and 1."""
    is_bit = cell.is_boolean and isinstance(value, int) and value in (0, 1)
    return bool(value) if is_bit else value


def _encoded(value: Any) -> bytes:
    """Type and length, then the value; only equal values of one type have one encoding."""
    if value is None:
        return b"null:0:"
    if isinstance(value, bytes):
        data = value
    else:
        text = value if isinstance(value, str) else repr(value)
        data = text.encode("utf-8", "surrogatepass")
    return b"%s:%d:%s" % (type(value).__name__.encode(), len(data), data)


def _identity(error: SQLAlchemyError) -> str:
    """The class of an error and its SQLSTATE, which is all of it that quotes nothing."""
    original = getattr(error, "orig", None)
    state = getattr(original, "sqlstate", None)
    name = type(original or error).__name__
    return f"{name}, SQLSTATE {state}" if isinstance(state, str) else name
