"""The findings table as an SQLite file: written in batches, finished in SQL, read by the suite.

SQLite because the suite runs there through Great Expectations' own SQL engine and because its
sorter spills to disk: memory does not grow with the number of rows. The file has mode 0600. What
is only needed until the table is finished (shingle signatures) lies in a second file that is
deleted then.
"""

import hashlib
import hmac
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from data_contracts.dataset.findings.columns import (
    COLUMNS,
    PER_RECORD,
    SUMMARY,
    SUMMARY_COLUMNS,
    TABLE,
)

CACHE_KIBIBYTES = 32 * 1024
READ_ROWS = 2_000


class FindingsStore:
    """One findings table under construction; `path` is the finished file's place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._scratch = path.with_suffix(".scratch")
        for file in (path, self._scratch):
            file.unlink(missing_ok=True)
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        # Durability is not needed: what a crash leaves half written is made again.
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("ATTACH DATABASE ? AS scratch", (str(self._scratch),))
        for pragma in (
            "journal_mode = OFF",
            "scratch.journal_mode = OFF",
            "synchronous = OFF",
            f"cache_size = -{CACHE_KIBIBYTES}",
            f"scratch.cache_size = -{CACHE_KIBIBYTES}",
            "temp_store = FILE",
        ):
            self.connection.execute(f"PRAGMA {pragma}")
        self._create()

    def add_rows(self, rows: Iterable[Sequence[Any]]) -> None:
        """Rows with the values of PER_RECORD, in its order."""
        places = ", ".join("?" * len(PER_RECORD))
        names = ", ".join(PER_RECORD)
        self._many(f"INSERT INTO {TABLE} ({names}) VALUES ({places})", rows)  # noqa: S608

    def add_signatures(self, rows: Iterable[tuple[int, bytes]]) -> None:
        """(row, signature) for near duplicates."""
        self._many("INSERT INTO scratch.signatures VALUES (?, ?)", rows)

    def add_bands(self, rows: Iterable[tuple[int, int]]) -> None:
        """(band key, row) for near duplicates."""
        self._many("INSERT INTO scratch.bands VALUES (?, ?)", rows)

    def begin(self) -> None:
        """Group what follows into one transaction."""
        self.connection.execute("BEGIN")

    def commit(self) -> None:
        """End the transaction."""
        self.connection.execute("COMMIT")

    def set_summary(self, values: dict[str, int | None]) -> None:
        """The one row about the whole set."""
        names = ", ".join(SUMMARY_COLUMNS)
        row = [values[name] for name in SUMMARY_COLUMNS]
        places = ", ".join("?" * len(row))
        self.connection.execute(f"INSERT INTO {SUMMARY} ({names}) VALUES ({places})", row)  # noqa: S608

    def scalar(self, query: str) -> Any:
        """The one value of a query."""
        return self.connection.execute(query).fetchone()[0]

    def drop_scratch(self) -> None:
        """Delete what only the finishing needed."""
        self.connection.execute("DETACH DATABASE scratch")
        self._scratch.unlink(missing_ok=True)

    def digest(self, key: bytes) -> str:
        """HMAC-SHA256 over every row in order; equal data and checks give equal digests."""
        keyed = hmac.new(key, b"findings-v2\n", hashlib.sha256)
        for batch in _batches(self.connection, f"SELECT * FROM {TABLE} ORDER BY row"):  # noqa: S608
            # The repr of a tuple of int, str and None is unambiguous.
            keyed.update(repr(batch).encode("utf-8", "surrogatepass"))
        keyed.update(repr(self.connection.execute(f"SELECT * FROM {SUMMARY}").fetchall()).encode())  # noqa: S608
        return keyed.hexdigest()

    def close(self) -> None:
        """Close the file; it is complete."""
        self.connection.close()
        self._scratch.unlink(missing_ok=True)

    def _many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        self.connection.executemany(statement, rows)

    def _create(self) -> None:
        columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        columns = columns.replace("row INTEGER", "row INTEGER PRIMARY KEY", 1)
        summary = ", ".join(f"{name} {kind}" for name, kind in SUMMARY_COLUMNS.items())
        self.connection.execute(f"CREATE TABLE {TABLE} ({columns})")
        self.connection.execute(f"CREATE TABLE {SUMMARY} ({summary})")
        self.connection.execute("CREATE TABLE scratch.signatures (row INTEGER PRIMARY KEY, s BLOB)")
        self.connection.execute("CREATE TABLE scratch.bands (key INTEGER, row INTEGER)")


def sqlite_url(path: Path) -> str:
    """The SQLAlchemy URL of a findings file, whatever is in its name.

    As SQLite's own URI the path is quoted, and SQLAlchemy and Great Expectations read the rest
    alike; a plain path with a space or a `?` is no URL to one of them.
    """
    return f"sqlite:///file:{quote(str(path.resolve()))}?uri=true"


class UsableRow(NamedTuple):
    """A record that may be trained on; `image_digest` is that of its picture, if it has one."""

    row: int
    split: str
    image_digest: str | None


def usable_rows(path: Path) -> Iterator[UsableRow]:
    """Every record of a finished table that may be trained on, in order."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        query = f"SELECT row, split, image_digest FROM {TABLE} WHERE usable ORDER BY row"  # noqa: S608
        for batch in _batches(connection, query):
            yield from map(UsableRow._make, batch)
    finally:
        connection.close()


def _batches(connection: sqlite3.Connection, query: str) -> Iterator[list[Any]]:
    cursor = connection.execute(query)
    while batch := cursor.fetchmany(READ_ROWS):
        yield batch
