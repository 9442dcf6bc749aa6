"""Reading 100,000 records takes no more memory than reading a few, in every format.

Held at once they would take several times the limit.
"""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from data_contracts.dataset.sources.data_source import DataSource
from tests.data_contracts.dataset.sources.peak_memory import peak_while_reading
from tests.data_contracts.dataset.sources.source_samples import (
    TEXTS,
    run_statements,
    write_csv,
    write_jsonl,
    write_parquet,
)

pytestmark = pytest.mark.long

COUNT = 100_000
LIMIT_BYTES = 24 * 1024 * 1024
COLUMNS = ", ".join(f"{name} text" for name in TEXTS)


def many() -> list[dict[str, str]]:
    return [
        {
            "id": f"record-{n}",
            "subject": f"subject-{n % 5000}",
            "prompt": f"What is {n}? " + "lorem ipsum " * 10,
            "answer": f"It is {n}. " + "dolor sit am " * 10,
            "licence": "MIT",
            "source": "made for a test",
        }
        for n in range(COUNT)
    ]


def write_folder(path: Path, rows: list[dict[str, str]]) -> None:
    datasets.Dataset(pa.Table.from_pylist(rows)).save_to_disk(path)


def write_table(path: Path, rows: Iterable[dict[str, str]]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE records ({COLUMNS})")
        names = ", ".join(f":{name}" for name in TEXTS)
        connection.executemany(f"INSERT INTO records VALUES ({names})", rows)  # noqa: S608
        connection.commit()


@pytest.mark.parametrize(
    ("source", "write"),
    [
        (DataSource(format="jsonl", path="data"), write_jsonl),
        (DataSource(format="csv", path="data"), write_csv),
        (DataSource(format="parquet", path="data"), write_parquet),
        (DataSource(format="huggingface", path="data"), write_folder),
        (DataSource(format="sql", table="records"), write_table),
    ],
    ids=["jsonl", "csv", "parquet", "huggingface", "sqlite"],
)
def test_memory_does_not_grow_with_the_rows(
    tmp_path: Path, source: DataSource, write: Callable[[Path, list[dict[str, str]]], None]
) -> None:
    write(tmp_path / "data", many())
    peak = peak_while_reading(source, tmp_path, f"sqlite:///{tmp_path}/data")
    assert (peak.rows, peak.unreadable) == (COUNT, 0)
    assert peak.bytes < LIMIT_BYTES


def test_postgresql_streams_too(tmp_path: Path, postgresql_url: str) -> None:
    run_statements(
        postgresql_url,
        [
            "DROP SCHEMA public CASCADE",
            "CREATE SCHEMA public",
            "CREATE TABLE records AS SELECT 'record-' || n AS id, 's' || n AS subject, "
            "repeat('lorem ipsum ', 12) AS prompt, repeat('dolor sit ', 12) AS answer, "
            "'MIT' AS licence, 'made for a test' AS source FROM generate_series(1, 100000) n",
        ],
    )
    source = DataSource(format="sql", table="records")
    peak = peak_while_reading(source, tmp_path, postgresql_url)
    assert (peak.rows, peak.unreadable) == (COUNT, 0)
    assert peak.bytes < LIMIT_BYTES
