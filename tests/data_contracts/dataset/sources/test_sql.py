"""A table on SQLite and on PostgreSQL: the same records, the same digest, errors without values."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, Example
from data_contracts.dataset.sources.data_source import DataSource, FieldMapping
from data_contracts.dataset.sources.reading import count_hint, source_files
from data_contracts.dataset.sources.sql import sql_content_digest
from tests.data_contracts.dataset.sources.source_samples import (
    CANARY,
    ids_of,
    reasons_of,
    records,
    renamed,
    rows_of,
    run_statements,
    unavailable,
    write_sqlite,
)
from tests.postgres_server import PASSWORD, available_databases

SOURCE = DataSource(format="sql", table="records")
COLUMNS = "id text, subject text, prompt text, answer text, licence text, source text"
INSERT = "INSERT INTO records (id, subject, prompt, answer, licence, source) VALUES (:id, :subject, :prompt, :answer, :licence, :source)"  # noqa: E501


@pytest.fixture(params=available_databases())
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield write_sqlite(tmp_path / "data.db", [])
        return
    url = request.getfixturevalue("postgresql_url")
    run_statements(url, ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"])
    yield url


def fill(url: str, rows: list[dict[str, Any]], columns: str = COLUMNS) -> None:
    run_statements(url, [f"CREATE TABLE records ({columns})"])
    if rows:
        run_statements(url, [INSERT], rows)


def test_records_come_in_the_order_of_the_id(url: str, tmp_path: Path) -> None:
    fill(url, list(reversed(records(12))))
    rows = rows_of(SOURCE, tmp_path, url)
    assert ids_of(rows) == sorted(f"record-{n}" for n in range(12))
    assert [row.row for row in rows] == list(range(1, 13))
    assert isinstance(rows[0], Example)
    assert rows[0].prompt == f"{CANARY} äö 0"
    assert count_hint(SOURCE, tmp_path, url) == 12
    assert source_files(SOURCE, tmp_path) == ()


def test_another_order_and_other_names(url: str, tmp_path: Path) -> None:
    fill(url, records(3), COLUMNS + ', "rank; DROP" integer')
    run_statements(url, ["UPDATE records SET \"rank; DROP\" = 3 WHERE id = 'record-0'"])
    source = DataSource(
        format="sql", table="records", order_by="rank; DROP", fields=renamed(licence="source")
    )
    assert ids_of(rows_of(source, tmp_path, url)) == ["record-1", "record-2", "record-0"]
    schema = "main" if url.startswith("sqlite") else "public"
    assert len(rows_of(DataSource(format="sql", table=f"{schema}.records"), tmp_path, url)) == 3


def test_types_of_columns(url: str, tmp_path: Path) -> None:
    columns = "id bigint, subject integer, prompt text, answer text, licence text, source text"
    fill(url, [], columns + ", consent boolean, synthetic boolean, similarity double precision")
    run_statements(
        url,
        [
            "INSERT INTO records VALUES (1, 7, 'p', 'a', NULL, 's', TRUE, FALSE, 0.25)",
            "INSERT INTO records VALUES (2, 8, 'p', NULL, NULL, 's', NULL, NULL, NULL)",
        ],
    )
    good, bad = rows_of(SOURCE, tmp_path, url)
    assert good == Example(
        1, "1", "7", "p", "a", "NOASSERTION", "s", consent=True, synthetic=False, similarity=0.25
    )
    assert reasons_of([bad]) == [(2, "field answer missing")]


def test_a_cell_of_another_type_is_not_text(url: str, tmp_path: Path) -> None:
    is_sqlite = url.startswith("sqlite")
    kind = "blob" if is_sqlite else "bytea"
    fill(url, [], COLUMNS.replace("answer text", f"answer {kind}"))
    fill_one = "INSERT INTO records VALUES ('1','s','p',:value,'MIT','s')"
    run_statements(url, [fill_one], [{"value": b"A"}])
    assert reasons_of(rows_of(SOURCE, tmp_path, url)) == [(1, "field answer is not text")]


def test_mixed_types_and_broken_text_in_sqlite(tmp_path: Path) -> None:
    url = write_sqlite(
        tmp_path / "data.db",
        [
            f"CREATE TABLE records ({COLUMNS}, tdm_checked_at timestamp)",
            "INSERT INTO records VALUES ('1','s','p',x'41','MIT','s',NULL)",
            "INSERT INTO records VALUES ('2','s','p',CAST(x'ff41' AS TEXT),'MIT','s',NULL)",
            "INSERT INTO records VALUES ('3','s','p','a','MIT','s','no date')",
            "INSERT INTO records VALUES ('4','s','p','a' || char(0),'MIT','s',NULL)",
        ],
    )
    rows = rows_of(SOURCE, tmp_path, url)
    assert ids_of(rows) == ["3"]
    assert [reason for _, reason in reasons_of(rows)] == [
        "field answer is not text",
        "field answer is not text",
        "field answer holds a NUL character",
    ]


def test_a_row_that_is_too_large_stays_in_the_database(url: str, tmp_path: Path) -> None:
    rows = records(3)
    rows[1]["answer"] = "ä" * (MAX_EXAMPLE_BYTES // 2)
    fill(url, rows)
    read = rows_of(SOURCE, tmp_path, url)
    assert reasons_of(read) == [(2, f"longer than {MAX_EXAMPLE_BYTES} bytes")]
    assert ids_of(read) == ["record-0", "record-2"]


def test_digest_says_whether_the_content_changed(url: str, tmp_path: Path) -> None:
    fill(url, records(30))
    digest = sql_content_digest(SOURCE, url)
    assert sql_content_digest(SOURCE, url) == digest
    run_statements(url, ["UPDATE records SET source = 'else' WHERE id = 'record-7'"])
    assert sql_content_digest(SOURCE, url) != digest
    run_statements(url, ["UPDATE records SET source = 'made for a test' WHERE id = 'record-7'"])
    assert sql_content_digest(SOURCE, url) == digest
    run_statements(url, ["UPDATE records SET source = NULL WHERE id = 'record-7'"])
    without_source = sql_content_digest(SOURCE, url)
    run_statements(url, ["UPDATE records SET source = '' WHERE id = 'record-7'"])
    assert len({digest, without_source, sql_content_digest(SOURCE, url)}) == 3


def test_digest_does_not_depend_on_the_database(tmp_path: Path, postgresql_url: str) -> None:
    run_statements(postgresql_url, ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"])
    sqlite_url = write_sqlite(tmp_path / "data.db", [])
    names = ["a", "B", "Z", "ä", "z", "_", "b c"]
    rows = [{**records(1)[0], "id": name, "licence": None} for name in names]
    for url in (sqlite_url, postgresql_url):
        fill(url, rows, COLUMNS + ", consent boolean")
        run_statements(url, ["UPDATE records SET consent = TRUE WHERE id = 'Z'"])
        # Two rows with one id, of which a database may give either first.
        run_statements(url, [INSERT], [{**rows[0], "answer": "2"}, {**rows[0], "answer": "1"}])
    assert sql_content_digest(SOURCE, sqlite_url) == sql_content_digest(SOURCE, postgresql_url)
    assert ids_of(rows_of(SOURCE, tmp_path, postgresql_url)) == sorted([*names, "a", "a"])


def test_what_is_not_there(url: str, tmp_path: Path) -> None:
    with unavailable("no such table"):
        rows_of(SOURCE, tmp_path, url)
    with unavailable("no such table"):
        sql_content_digest(SOURCE, url)
    fill(url, [], COLUMNS.replace("answer", "reply"))
    with unavailable("column answer missing (field answer)"):
        rows_of(SOURCE, tmp_path, url)
    source = DataSource(
        format="sql", table="records", order_by="no", fields=renamed(answer="reply")
    )
    with unavailable("column no missing (order)"):
        rows_of(source, tmp_path, url)
    known = DataSource(format="sql", table="records", fields=renamed(answer="reply"))
    assert rows_of(known, tmp_path, url) == []
    assert count_hint(SOURCE, tmp_path, url) is None


def test_connections_that_fail_never_show_the_password(tmp_path: Path, postgresql_url: str) -> None:
    wrong = postgresql_url.replace(PASSWORD, f"{CANARY}-password")
    with unavailable("no connection to the database (OperationalError"):
        rows_of(SOURCE, tmp_path, wrong)
    with unavailable("no connection to the database (OperationalError"):
        sql_content_digest(SOURCE, wrong)
    for url in (
        f"nonsense {CANARY}",
        f"nosuch://u:{CANARY}@h/d",
        f"postgresql+psycopg://u:{CANARY}@h:x/d",
    ):
        with unavailable("not a database URL with an installed driver"):
            rows_of(SOURCE, tmp_path, url)
    with unavailable("no connection to the database (OperationalError"):
        rows_of(SOURCE, tmp_path, f"postgresql+psycopg://u:{CANARY}@127.0.0.1:1/d")
    with unavailable("no connection to a database is configured"):
        rows_of(SOURCE, tmp_path)


def test_a_missing_sqlite_file_is_not_created(tmp_path: Path) -> None:
    with unavailable("no connection to the database"):
        rows_of(SOURCE, tmp_path, f"sqlite:///{tmp_path}/no.db")
    assert not (tmp_path / "no.db").exists()
    (tmp_path / "no.db").write_bytes(CANARY.encode() * 1000)
    with unavailable("DatabaseError"):
        rows_of(SOURCE, tmp_path, f"sqlite:///{tmp_path}/no.db")


def test_the_transaction_is_read_only(tmp_path: Path, postgresql_url: str) -> None:
    run_statements(postgresql_url, ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"])
    fill(postgresql_url, records(2))
    run_statements(
        postgresql_url,
        [
            "CREATE FUNCTION taken() RETURNS text LANGUAGE sql VOLATILE AS "
            "$$ INSERT INTO records VALUES ('x','x','x','x','x','x') RETURNING id $$",
            "CREATE VIEW sneaky AS SELECT id, subject, prompt, answer, licence, taken() AS source "
            "FROM records",
        ],
    )
    with unavailable("reading ended (ReadOnlySqlTransaction, SQLSTATE 25006)"):
        rows_of(DataSource(format="sql", table="sneaky"), tmp_path, postgresql_url)
    assert len(rows_of(SOURCE, tmp_path, postgresql_url)) == 2


def test_order_by_and_table_are_for_sql_only() -> None:
    fields = (FieldMapping(field="id", column="id"),)
    for wrong in (
        {"format": "sql", "table": "a.b.c"},
        {"format": "sql", "table": "records; DROP TABLE records"},
        {"format": "sql"},
        {"format": "sql", "table": "records", "path": "x"},
        {"format": "sql", "table": "records", "fields": fields},
        {"format": "csv", "path": "x.csv", "order_by": "id"},
        {"format": "csv", "path": "x.csv", "table": "records"},
    ):
        with pytest.raises(ValueError, match=r"expected|match"):
            DataSource.model_validate(wrong)


@pytest.mark.parametrize("kind", ["text", "json", "jsonb"])
def test_a_conversation_in_a_column_of_text_or_json(url: str, tmp_path: Path, kind: str) -> None:
    columns = ", ".join(f"{name} text" for name in ("id", "subject", "licence", "source"))
    said = [{"role": "user", "content": f"{CANARY} äö"}, {"content": "a", "role": "assistant"}]
    run_statements(url, [f"CREATE TABLE chats ({columns}, messages {kind}, answer {kind})"])
    rows = [
        {"id": f"{n}", "said": json.dumps(messages)} for n, messages in enumerate((said, said[:1]))
    ]
    insert = "INSERT INTO chats VALUES (:id, :id, 'MIT', 's', :said, :said)"
    run_statements(url, [insert if kind == "text" else as_json(insert, url, kind)], rows)
    source = DataSource(format="sql", table="chats", form="chat")
    first, second = rows_of(source, tmp_path, url)
    assert isinstance(first, Example)
    assert first.messages == (("user", f"{CANARY} äö"), ("assistant", "a"))
    assert reasons_of([second]) == [(2, "field messages has no turn of the assistant")]
    assert len(sql_content_digest(source, url)) == 64


def as_json(insert: str, url: str, kind: str) -> str:
    """A driver's text becomes JSON on PostgreSQL when the statement says so."""
    return insert.replace(":said", f"CAST(:said AS {kind})") if "postgresql" in url else insert
