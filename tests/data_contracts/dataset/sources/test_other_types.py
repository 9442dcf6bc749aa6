"""Columns in types of their own: what is plain is read, anything else is refused once."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, Example
from data_contracts.dataset.opt_out import judge_opt_out
from data_contracts.dataset.sources.data_source import DataSource
from data_contracts.dataset.sources.field_values import ValueRefusedError, converter_of
from tests.data_contracts.dataset.sources.source_samples import (
    Row,
    reasons_of,
    records,
    rows_of,
    unavailable,
)

PARQUET = DataSource(format="parquet", path="data.parquet")
FOLDER = DataSource(format="huggingface", path="data")
JSONL = DataSource(format="jsonl", path="data.jsonl")
CSV = DataSource(format="csv", path="data.csv")
VIEWED = "vi\u00ebw, longer than twelve bytes"
NOON = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)

datasets.disable_progress_bars()


def with_column(name: str, values: Any) -> pa.Table:
    table = pa.Table.from_pylist(records(len(values)))
    position = table.schema.get_field_index(name)
    if position < 0:
        return table.append_column(name, values)
    return table.set_column(position, name, values)


def through_parquet(root: Path, table: pa.Table) -> list[Row]:
    pq.write_table(table, root / "data.parquet")
    return rows_of(PARQUET, root)


def through_arrow(root: Path, table: pa.Table) -> list[Row]:
    """As `save_to_disk` lays it out; its own writer does not know every type."""
    folder = root / "data"
    folder.mkdir()
    (folder / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}')
    with pa.ipc.new_stream(folder / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    return rows_of(FOLDER, root)


WAYS = [through_parquet, through_arrow]


def first(rows: list[Row]) -> Example:
    row = rows[0]
    assert isinstance(row, Example), row
    return row


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("id", 7, "7"),
        ("id", -(2**63), str(-(2**63))),
        ("id", Decimal("17.00"), "17"),
        ("id", Decimal("1E+3"), "1000"),
        ("id", Decimal("-0.50"), "-0.5"),
        ("id", 17.0, "17"),
        ("subject", UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        ("subject", date(1957, 3, 4), "1957-03-04"),
        ("source", NOON, "2026-03-01T12:30:00+00:00"),
        ("label", True, "true"),
        ("label", 3, "3"),
        ("tdm_reservation", False, "0"),
        ("tdm_reservation", 1, "1"),
        ("tdm_checked_at", date(2026, 3, 1), "2026-03-01"),
        ("tdm_checked_at", datetime(2026, 3, 1), "2026-03-01"),
        ("tdm_checked_at", datetime(2026, 3, 1, 8), "2026-03-01T08:00:00"),
        ("split", "Validation", "heldout"),
        ("split", "dev", "heldout"),
        ("split", " Training", "train"),
    ],
)
def test_what_is_plain(field: str, value: Any, text: str) -> None:
    assert converter_of(field)(value) == text


@pytest.mark.parametrize("field", ["consent", "synthetic"])
def test_flags_however_they_are_written(field: str) -> None:
    convert = converter_of(field)
    for yes, no in ((1, 0), (Decimal(1), Decimal("0.0")), (1.0, 0.0), ("1", "0"), ("Y", "n")):
        assert (convert(yes), convert(no)) == (True, False)
    for yes, no in (("TRUE", "False"), ("yes", "No"), ("T", " f "), (True, False)):
        assert (convert(yes), convert(no)) == (True, False)
    others: list[Any] = [2, -1, 0.5, "", "ja", "x", "10", None, [], Decimal("NaN"), float("nan")]
    for other in others:
        with pytest.raises(ValueRefusedError, match="is not true or false"):
            convert(other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 0.5),
        ("id", 2.0**60),
        ("id", float("nan")),
        ("id", True),
        ("id", Decimal("NaN")),
        ("id", Decimal("1E+999999")),
        ("id", 10**50),
        ("id", b"x"),
        ("prompt", 7),
        ("answer", True),
        ("licence", 1),
        ("language", date(2026, 1, 1)),
    ],
)
def test_what_has_more_than_one_spelling(field: str, value: Any) -> None:
    with pytest.raises(ValueRefusedError, match="is not text"):
        converter_of(field)(value)


@pytest.mark.parametrize("through", WAYS)
@pytest.mark.parametrize(
    ("field", "values", "wanted"),
    [
        ("id", pa.array([Decimal("17.00")], pa.decimal128(9, 2)), "17"),
        ("id", pa.array([Decimal(3)], pa.decimal256(40, 0)), "3"),
        ("id", pa.array([7], pa.uint8()).dictionary_encode(), "7"),
        ("id", pa.array([5.0]), "5"),
        ("subject", pa.array([date(1957, 3, 4)]), "1957-03-04"),
        ("source", pa.array([NOON], pa.timestamp("ns", "Europe/Berlin")), NOON.isoformat()),
        ("source", pa.array([NOON], pa.timestamp("s", "UTC")), NOON.isoformat()),
        ("tdm_checked_at", pa.array([datetime(2026, 3, 1)], pa.timestamp("ns")), "2026-03-01"),
        ("consent", pa.array([1], pa.int8()), True),
        ("consent", pa.array(["Y"]).dictionary_encode(), True),
        ("synthetic", pa.array([Decimal(0)], pa.decimal128(1, 0)), False),
        ("answer", pa.array(["long"], pa.large_string()), "long"),
        ("answer", pa.array([VIEWED], pa.string_view()), VIEWED),
        ("answer", pa.array([b"bytes"], pa.binary()), "bytes"),
        ("answer", pa.array([b"bytes"], pa.large_binary()), "bytes"),
        ("answer", pa.array(["dict"], pa.large_string()).dictionary_encode(), "dict"),
        ("similarity", pa.array(["0.25"]), 0.25),
    ],
    ids=range(17),
)  # fmt: skip
def test_columns_of_every_type(
    tmp_path: Path, through: Any, field: str, values: Any, wanted: Any
) -> None:
    assert getattr(first(through(tmp_path, with_column(field, values))), field) == wanted


@pytest.mark.parametrize("through", WAYS)
@pytest.mark.parametrize(
    ("field", "values", "reason"),
    [
        ("answer", pa.array([1]), "column answer of type int64, where its field takes text"),
        ("answer", pa.array([["x"]]), "a list of structs with role and content, or JSON text"),
        ("id", pa.array([{"x": 1}]), "column id of type struct<x: int64>"),
        ("label", pa.array([7], pa.duration("s")), "column label of type duration[s]"),
    ],
)
def test_a_type_that_no_row_can_be_read_from_is_said_once(
    tmp_path: Path, through: Any, field: str, values: Any, reason: str
) -> None:
    with unavailable(reason):
        through(tmp_path, with_column(field, values))


@pytest.mark.parametrize("through", WAYS)
def test_an_instant_beyond_the_calendar_concerns_its_row(tmp_path: Path, through: Any) -> None:
    beyond = pa.array([0, 2**52], pa.int64()).cast(pa.timestamp("ms"))
    rows = through(tmp_path, with_column("source", beyond))
    assert first(rows).source == "1970-01-01T00:00:00"
    assert reasons_of(rows) == [(2, "field source is not text")]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.binary()])
def test_no_string_type_hides_a_record_that_is_too_long(tmp_path: Path, kind: Any) -> None:
    answers = pa.array(["x", "y" * (MAX_EXAMPLE_BYTES + 1), "z"]).cast(kind)
    rows = through_arrow(tmp_path, with_column("answer", answers))
    assert reasons_of(rows) == [(2, f"longer than {MAX_EXAMPLE_BYTES} bytes")]


def test_json_and_csv_in_types_of_their_own(tmp_path: Path) -> None:
    row = {**records(1)[0], "id": 7, "subject": 3.0, "label": 1, "consent": "Y", "synthetic": 0}
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    record = first(rows_of(JSONL, tmp_path))
    assert (record.id, record.subject, record.label) == ("7", "3", "1")
    assert (record.consent, record.synthetic) == (True, False)
    header = "id,subject,prompt,answer,source,consent,synthetic\n"
    (tmp_path / "data.csv").write_text(f"{header}1,s,p,a,x,1,FALSE\n")
    record = first(rows_of(CSV, tmp_path))
    assert (record.consent, record.synthetic) == (True, False)


def test_evidence_in_a_column_of_instants_counts(tmp_path: Path) -> None:
    table = with_column("tdm_checked_at", pa.array([NOON], pa.timestamp("ms", "UTC")))
    table = table.append_column("tdm_reservation", pa.array([0]))
    record = first(through_parquet(tmp_path, table))
    finding = judge_opt_out(
        record.tdm_reservation,
        record.tdm_policy,
        record.tdm_checked_at,
        now=datetime(2026, 4, 1, tzinfo=UTC),
        max_age_days=365,
    )
    assert finding.permitted


@pytest.mark.parametrize(
    "blank", ["\u200b", "\ufeff", "\u00ad\u2060", "\u3164", "\u2800 \u00a0", "\ufe0f"]
)
@pytest.mark.parametrize("field", ["id", "subject"])
def test_what_nobody_sees_is_no_name(tmp_path: Path, field: str, blank: str) -> None:
    row = {**records(1)[0], field: blank}
    (tmp_path / "data.jsonl").write_text(json.dumps(row))
    assert reasons_of(rows_of(JSONL, tmp_path)) == [(1, "field id or subject is blank")]
