"""Parquet files, and folders that the real `datasets` package wrote."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, Example
from data_contracts.dataset.sources.data_source import DataSource, FieldMapping
from data_contracts.dataset.sources.reading import count_hint, source_files
from tests.data_contracts.dataset.sources.source_samples import (
    CANARY,
    Row,
    ids_of,
    reasons_of,
    records,
    renamed,
    rows_of,
    unavailable,
    write_parquet,
)

PARQUET = DataSource(format="parquet", path="data.parquet")
FOLDER = DataSource(format="huggingface", path="data")
TOO_LONG = f"longer than {MAX_EXAMPLE_BYTES} bytes"

datasets.disable_progress_bars()


def save(root: Path, rows: list[dict[str, Any]], **options: Any) -> None:
    datasets.Dataset.from_list(rows).save_to_disk(root / "data", **options)


def save_arrow(root: Path, table: pa.Table) -> None:
    datasets.Dataset(table).save_to_disk(root / "data")


def both(root: Path, table: pa.Table) -> list[list[Row]]:
    """The rows of a table through Parquet and through a Hugging Face folder."""
    pq.write_table(table, root / "data.parquet")
    save_arrow(root, table)
    return [rows_of(PARQUET, root), rows_of(FOLDER, root)]


def with_column(name: str, values: Any) -> pa.Table:
    table = pa.Table.from_pylist(records(len(values)))
    position = table.schema.get_field_index(name)
    if position < 0:
        return table.append_column(name, values)
    return table.set_column(position, name, values)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False},
        {"compression": "zstd", "data_page_version": "2.0", "row_group_size": 7},
        {"compression": "gzip", "data_page_size": 100, "write_batch_size": 3},
        {"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"},
        {"use_dictionary": False, "column_encoding": "DELTA_LENGTH_BYTE_ARRAY"},
        {"compression": "none", "write_page_checksum": True, "dictionary_pagesize_limit": 100},
    ],
    ids=range(7),
)
def test_parquet_however_it_is_encoded(tmp_path: Path, options: dict[str, Any]) -> None:
    write_parquet(tmp_path / "data.parquet", records(50), **options)
    rows = rows_of(PARQUET, tmp_path)
    assert ids_of(rows) == [f"record-{n}" for n in range(50)]
    assert [row.row for row in rows] == list(range(1, 51))
    assert isinstance(rows[3], Example)
    assert rows[3].prompt == f"{CANARY} äö 3"
    assert count_hint(PARQUET, tmp_path) == 50
    assert source_files(PARQUET, tmp_path) == (tmp_path.resolve() / "data.parquet",)


def test_a_dataset_in_several_files(tmp_path: Path) -> None:
    save(tmp_path, records(50), num_shards=3)
    rows = rows_of(FOLDER, tmp_path)
    assert ids_of(rows) == [f"record-{n}" for n in range(50)]
    assert count_hint(FOLDER, tmp_path) == 50
    names = [path.name for path in source_files(FOLDER, tmp_path)]
    assert names == [*(f"data-0000{n}-of-00003.arrow" for n in range(3)), "state.json"]


def test_a_dataset_dict_states_the_split(tmp_path: Path) -> None:
    parts = {
        name: datasets.Dataset.from_list(records(2, source=name))
        for name in ("train", "test", "validation")
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "data")
    rows = rows_of(FOLDER, tmp_path)
    stated = [(r.row, r.source, r.split) for r in rows if isinstance(r, Example)]
    assert stated == [
        (1, "train", "train"),
        (2, "train", "train"),
        (3, "test", "heldout"),
        (4, "test", "heldout"),
        (5, "validation", "heldout"),
        (6, "validation", "heldout"),
    ]
    assert len(source_files(FOLDER, tmp_path)) == 7
    fields = (*renamed(), FieldMapping(field="split", column="source"))
    with unavailable("a split stated by folders and by a column"):
        rows_of(DataSource(format="huggingface", path="data", fields=fields), tmp_path)
    datasets.DatasetDict(extra=parts["train"]).save_to_disk(tmp_path / "other")
    with unavailable("splits other than dev, "):
        rows_of(DataSource(format="huggingface", path="other"), tmp_path)


def test_columns_with_other_types(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(records(2, consent=True, similarity=0.25))
    table = table.set_column(0, "id", pa.array([7, -8], pa.int64()))
    table = table.set_column(1, "subject", pa.array([2**63, 1], pa.uint64()))
    table = table.set_column(3, "answer", pa.array(["x", None]).dictionary_encode())
    table = table.set_column(4, "licence", pa.array([None, "MIT"], pa.large_string()))
    for good, bad in both(tmp_path, table):
        assert good == Example(
            1, "7", str(2**63), f"{CANARY} äö 0", "x", "NOASSERTION", "made for a test",
            consent=True, similarity=0.25,
        )  # fmt: skip
        assert reasons_of([bad]) == [(2, "field answer missing")]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (pa.nulls(2), "field answer missing"),
        (pa.array([b"\xff", b"y"], pa.binary()), "field answer is not text"),
        (pa.array(["a\0", "b\0"]), "field answer holds a NUL character"),
    ],
    ids=range(3),
)
def test_columns_that_are_not_text(tmp_path: Path, values: Any, reason: str) -> None:
    for rows in both(tmp_path, with_column("answer", values)):
        assert reasons_of(rows)[0] == (1, reason)


def test_numbers_and_booleans_of_other_types(tmp_path: Path) -> None:
    for rows in both(tmp_path, with_column("consent", pa.array([2, 0]))):
        assert reasons_of(rows) == [(1, "field consent is not true or false")]
    nan = pa.array([float("nan"), 1.0, None], pa.float32())
    for rows in both(tmp_path, with_column("punsafe", nan)):
        assert reasons_of(rows) == [(1, "field punsafe is not a finite number")]


def test_bytes_that_are_not_utf8_concern_their_row(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"\xe4\xf6", None, b"good"], pa.binary())
    for kind in (pa.string(), pa.large_string()):
        broken = raw.cast(pa.large_binary() if kind == pa.large_string() else raw.type).view(kind)
        for rows in both(tmp_path, with_column("answer", broken)):
            assert reasons_of(rows) == [
                (2, "field answer is not text"),
                (3, "field answer missing"),
            ]


def test_a_record_that_is_too_long(tmp_path: Path) -> None:
    answers = [f"{CANARY} {n}" for n in range(500)]
    answers[123] = "x" * 10_000_000
    answers[400] = "x" * MAX_EXAMPLE_BYTES
    for rows in both(tmp_path, with_column("answer", pa.array(answers))):
        assert reasons_of(rows) == [(124, TOO_LONG), (401, TOO_LONG)]
        assert len(rows) == 500


def test_columns_missing_or_there_twice(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(records(2))
    twice = table.append_column("answer", table["prompt"])
    pq.write_table(twice, tmp_path / "data.parquet")
    with unavailable("two columns of the same name"):
        rows_of(PARQUET, tmp_path)
    for source in (PARQUET, FOLDER):
        mapped = DataSource(format=source.format, path=source.path, fields=renamed(answer="reply"))
        both(tmp_path, table)
        with unavailable("column reply missing (field answer)"):
            rows_of(mapped, tmp_path)


def test_empty_tables(tmp_path: Path) -> None:
    empty = pa.Table.from_pylist(records(1)).slice(0, 0)
    assert both(tmp_path, empty) == [[], []]


def test_files_that_the_state_must_not_name(tmp_path: Path) -> None:
    save(tmp_path, records(2))
    state = tmp_path / "data" / "state.json"
    names = ["../x.arrow", "/etc/passwd", "no.arrow", "a\0b", 7, None]
    for name in names:
        state.write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with unavailable("no such file" if name == "no.arrow" else "no list of files"):
            rows_of(FOLDER, tmp_path)
    for text in ("[" * 100_000, "[]", "{", '{"_data_files": 7}', '"\ud800"'):
        state.write_bytes(text.encode("utf-8", "surrogatepass"))
        with unavailable("no"):
            rows_of(FOLDER, tmp_path)
    (tmp_path / "data" / "dataset_dict.json").write_text('{"splits": ["../data", 7, {}]}')
    with unavailable("splits other than"):
        rows_of(FOLDER, tmp_path)
