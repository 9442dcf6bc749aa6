"""From a finding's row back to the record: the id in the data, or none rather than a wrong one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from data_contracts.dataset.examples import Example, UnreadableRow
from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.dataset.sources.data_source import (
    DataSource,
    DataUnavailableError,
    FieldMapping,
)
from silo_agent.gate.row_names import RowNames, meaning_of_row, names_of
from tests.data_contracts.dataset.contract_samples import replaced, sample_record
from tests.silo_agent.gate_samples import SampleSilo
from tests.silo_agent.steward_samples import view_of

KEYED = Keyed(b"k" * 32)


def record(row: int, id: str) -> Example:  # noqa: A002
    return Example(row, id, "s", "a question", "an answer", "MIT", "here")


def keyed(*ids: str) -> dict[int, str]:
    return {row: KEYED("id", name) for row, name in enumerate(ids, start=1)}


def test_a_row_is_named_by_the_id_that_the_finding_has() -> None:
    rows = [record(1, "one"), record(2, "two"), record(3, "three")]
    wanted = {1: KEYED("id", "one"), 3: KEYED("id", "three")}
    assert names_of(rows, wanted, KEYED) == RowNames({1: "one", 3: "three"}, {})


def test_a_record_that_changed_has_no_name() -> None:
    assert names_of([record(1, "other"), record(2, "two")], keyed("one", "two"), KEYED).ids == {
        2: "two"
    }
    assert names_of([record(1, "one")], {1: Keyed(b"x" * 32)("id", "one")}, KEYED) == RowNames()


def test_a_row_that_is_no_record_says_why() -> None:
    rows: list[Example | UnreadableRow] = [record(1, "one"), UnreadableRow(2, "not JSON")]
    wanted = {2: KEYED("row", "2")}
    assert names_of(rows, wanted, KEYED) == RowNames({}, {2: "not JSON"})
    assert names_of([UnreadableRow(1, "not JSON")], keyed("one"), KEYED) == RowNames()
    assert names_of([record(2, "two")], wanted, KEYED) == RowNames()


def test_nothing_is_read_beyond_the_last_row_and_nothing_at_all_for_none() -> None:
    read: list[int] = []

    def rows() -> Iterator[Example]:
        for row in (1, 2, 4, 5, 6):
            read.append(row)
            yield record(row, f"r{row}")

    assert names_of(rows(), {2: KEYED("id", "r2"), 3: "gone"}, KEYED).ids == {2: "r2"}
    assert read == [1, 2, 4], "a blank line has no row, so the next one ends the search"
    read.clear()
    assert names_of(rows(), {}, KEYED) == RowNames()
    assert read == []


def test_data_that_cannot_be_read_any_more_have_fewer_names() -> None:
    def rows() -> Iterator[Example]:
        yield record(1, "one")
        raise DataUnavailableError("f", "gone", row=2)

    assert names_of(rows(), keyed("one", "two"), KEYED).ids == {1: "one"}


def test_a_name_is_one_printable_line() -> None:
    strange = "a\x1b[2J\u202eb\n" + "c" * 100
    (shown,) = names_of([record(1, strange)], keyed(strange), KEYED).ids.values()
    assert shown.isprintable()
    assert shown.startswith("a[2Jbccc")
    assert len(shown) == 61
    assert shown.endswith("…")


SOURCES = (
    (DataSource(format="jsonl", path="a/b.jsonl"), "line 7 of a/b.jsonl"),
    (DataSource(format="csv", path="b.csv"), "below the header of b.csv"),
    (DataSource(format="parquet", path="b.parquet"), "seventh of b.parquet"),
    (DataSource(format="huggingface", path="set"), "the files in set"),
    (DataSource(format="image-text", path="pictures"), "metadata in pictures"),
    (DataSource(format="sql", table="t.answers"), "table t.answers, in the order of id"),
    (DataSource(format="sql", table="answers", order_by="at"), "in the order of at"),
    (
        DataSource(
            format="sql",
            table="answers",
            fields=tuple(
                FieldMapping(field=f, column=f"c_{f}")
                for f in ("id", "subject", "prompt", "answer", "source")
            ),
        ),
        "in the order of c_id",
    ),
)


@pytest.mark.parametrize(("source", "words"), SOURCES, ids=[words for _, words in SOURCES])
def test_a_row_means_a_place_in_data_of_each_kind(source: DataSource, words: str) -> None:
    assert words in meaning_of_row(source)


def test_rows_of_a_table_are_named_by_their_ids(tmp_path: Path) -> None:
    """Rows of a database have no numbers of their own: without ids nobody could find them."""
    contract = replaced(
        (
            "type: local\n    path: sets/records.jsonl\n    format: jsonl",
            "type: custom\n    format: sql",
        )
    )
    silo = SampleSilo(tmp_path, contract)
    url = f"sqlite:///{tmp_path / 'data.db'}"
    rows = [sample_record(n, licence="MIT" if n % 20 else "GPL-3.0-only") for n in range(40)]
    engine = sa.create_engine(url)
    table = sa.Table("records", sa.MetaData(), *(sa.Column(name, sa.Text) for name in rows[0]))
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), rows)
    engine.dispose()
    (tmp_path / "keys" / "database-url").write_text(url)
    (rule,) = view_of(silo).in_state("fails")
    assert rule.rule == "licence.allowed"
    assert [row.record for row in rule.rows] == ["record-0", "record-20"]
    assert all(row.row for row in rule.rows)
