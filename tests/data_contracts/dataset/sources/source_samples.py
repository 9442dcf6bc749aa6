"""Data sets of every format, written out by the libraries that such files come from."""

import csv
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from data_contracts.dataset.examples import Example, UnreadableRow
from data_contracts.dataset.sources.data_source import (
    DataSource,
    DataUnavailableError,
    FieldMapping,
)
from data_contracts.dataset.sources.reading import read_source

CANARY = "Canary7f3a"
TEXTS = ("id", "subject", "prompt", "answer", "licence", "source")

Row = Example | UnreadableRow


def rows_of(source: DataSource, root: Path, connection: str | None = None) -> list[Row]:
    """Every row of a source."""
    return list(read_source(source, root, connection))


def reasons_of(rows: Iterable[Row]) -> list[tuple[int, str]]:
    """Number and reason of the unreadable rows."""
    return [(row.row, row.reason) for row in rows if isinstance(row, UnreadableRow)]


def ids_of(rows: Iterable[Row]) -> list[str]:
    """Ids of the records."""
    return [row.id for row in rows if isinstance(row, Example)]


@contextmanager
def unavailable(reason: str) -> Iterator[None]:
    """The block raises DataUnavailableError with `reason`, and the error quotes no data."""
    with pytest.raises(DataUnavailableError) as caught:
        yield
    assert reason in caught.value.reason
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None


def renamed(**columns: str) -> tuple[FieldMapping, ...]:
    """The six usual fields, some of them under another name."""
    names = {name: name for name in TEXTS} | columns
    return tuple(FieldMapping(field=field, column=name) for field, name in names.items())


def records(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Good records with the canary in their texts."""
    return [
        {
            "id": f"record-{n}",
            "subject": f"subject-{n}",
            "prompt": f"{CANARY} äö {n}",
            "answer": f"{CANARY} {n}",
            "licence": "MIT",
            "source": "made for a test",
            **changes,
        }
        for n in range(count)
    ]


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A CSV file with a header line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> None:
    """A Parquet file; options are those of pyarrow's writer."""
    pq.write_table(pa.Table.from_pylist(list(rows)), path, **options)


def write_images(folder: Path, names: Iterable[str]) -> None:
    """Small PNG files."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / name, format="PNG")


def write_sqlite(path: Path, statements: Iterable[str]) -> str:
    """A SQLite file made by `statements`; its URL."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return f"sqlite:///{path}"


def run_statements(
    url: str, statements: Iterable[str], rows: Sequence[dict[str, Any]] = ()
) -> None:
    """Run SQL on a database of either kind; with rows, each statement once per row."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement), list(rows) or None)
