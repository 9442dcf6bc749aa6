"""JSONL and CSV: what is read, and every way in which a row is not a record."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, Example
from data_contracts.dataset.sources.columns import columns_of
from data_contracts.dataset.sources.data_source import DataSource, FieldMapping
from data_contracts.dataset.sources.example_maker import ExampleMaker
from data_contracts.dataset.sources.jsonl import JsonlFile
from data_contracts.dataset.sources.reading import count_hint, read_source, source_files
from tests.data_contracts.dataset.sources.source_samples import (
    CANARY,
    ids_of,
    reasons_of,
    records,
    renamed,
    rows_of,
    unavailable,
    write_csv,
    write_jsonl,
)

JSONL = DataSource(format="jsonl", path="data.jsonl")
CSV = DataSource(format="csv", path="data.csv")
HEADER = b"id,subject,prompt,answer,licence,source\n"
GOOD = b"1,s,p,a,MIT,s\n"
OPTIONAL: dict[str, Any] = {
    "split": "test",
    "label": "l",
    "consent": True,
    "synthetic": False,
    "tdm_reservation": "0",
    "tdm_policy": "https://example.org/policy",
    "tdm_checked_at": "2026-01-01",
    "language": "en",
    "nsfw": "UNLIKELY",
    "similarity": 0.25,
    "punsafe": 1e-3,
    "pwatermark": 0.5,
}
WANTED = Example(
    1, "record-0", "subject-0", f"{CANARY} äö 0", f"{CANARY} 0", "MIT", "made for a test",
    **{**OPTIONAL, "split": "heldout"},
)  # fmt: skip


def jsonl_reasons(root: Path, *lines: bytes) -> list[tuple[int, str]]:
    (root / "data.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return reasons_of(rows_of(JSONL, root))


def csv_reasons(root: Path, *lines: bytes, header: bytes = HEADER) -> list[tuple[int, str]]:
    (root / "data.csv").write_bytes(header + b"".join(lines))
    rows = rows_of(CSV, root)
    assert CANARY not in repr(reasons_of(rows))
    return reasons_of(rows)


def test_every_field_of_both_formats(tmp_path: Path) -> None:
    rows = records(1, **OPTIONAL)
    write_jsonl(tmp_path / "data.jsonl", rows)
    as_text = {"consent": "true", "synthetic": "false"}
    write_csv(tmp_path / "data.csv", [{**rows[0], **as_text}])
    assert rows_of(JSONL, tmp_path) == [WANTED]
    assert rows_of(CSV, tmp_path) == [WANTED]
    lines = JsonlFile(tmp_path / "data.jsonl", columns_of(JSONL))
    assert list(ExampleMaker(JSONL, lines.columns, "jsonl").examples(lines.rows())) == [WANTED]
    assert source_files(CSV, tmp_path) == (tmp_path.resolve() / "data.csv",)


def test_columns_of_another_name(tmp_path: Path) -> None:
    fields = (*renamed(answer="reply"), FieldMapping(field="label", column="class"))
    row = {**records(1)[0], "reply": "r", "class": "c", "split": "nonsense"}
    write_jsonl(tmp_path / "data.jsonl", [row, {"reply": "r"}])
    write_csv(tmp_path / "data.csv", [row])
    for source in (JSONL, CSV):
        mapped = DataSource(format=source.format, path=source.path, fields=fields)
        record = rows_of(mapped, tmp_path)[0]
        assert isinstance(record, Example)
        assert (record.answer, record.label, record.split) == ("r", "c", None)
    mapped = DataSource(format="jsonl", path="data.jsonl", fields=renamed(id="key"))
    assert reasons_of(rows_of(mapped, tmp_path))[0] == (1, "field id (column key) missing")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": None}, "field answer missing"),
        ({"answer": 7}, "field answer is not text"),
        ({"answer": [CANARY]}, "field answer is not text"),
        ({"id": 7.5}, "field id is not text"),
        ({"answer": f"{CANARY}\ud800"}, "field answer holds half a surrogate pair"),
        ({"answer": f"{CANARY}\0"}, "field answer holds a NUL character"),
        ({"subject": " "}, "field id or subject is blank"),
        ({"split": CANARY}, "field split is neither train nor heldout"),
        ({"consent": "maybe"}, "field consent is not true or false"),
        ({"synthetic": 2}, "field synthetic is not true or false"),
        ({"similarity": "0,5"}, "field similarity is not a number"),
        ({"similarity": True}, "field similarity is not a number"),
        ({"similarity": float("nan")}, "not JSON"),
        ({"similarity": 10**400}, "field similarity is not a finite number"),
    ],
)
def test_values_that_make_a_line_unreadable(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    good = records(1)[0]
    lines = [json.dumps(row).encode() for row in (good, {**good, **changes}, good)]
    assert jsonl_reasons(tmp_path, *lines) == [(2, reason)]


def test_lines_in_other_encodings(tmp_path: Path) -> None:
    text = json.dumps(records(1)[0], ensure_ascii=False)
    assert jsonl_reasons(tmp_path, text.encode("latin-1")) == [(1, "not UTF-8")]
    with unavailable("UTF-16 text"):
        jsonl_reasons(tmp_path, text.encode("utf-16"))
    assert jsonl_reasons(tmp_path, b'{"a":' * 100_000) == [(1, "not JSON")]
    assert jsonl_reasons(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1,s,Canary7f3a,a,MIT\n", "more or fewer cells than the header"),
        (b"1,s,Canary7f3a,a,MIT,s,x\n", "more or fewer cells than the header"),
        (b'1,s,Canary7f3a "quoted" text,a,MIT,s\n', "a quote out of place"),
        (b'1,s,"Canary7f3a"x,a,MIT,s\n', "a quote out of place"),
        (b"1,s,Canary7f3a\0,a,MIT,s\n", "a NUL byte"),
        (b"1,s,Canary7f3a\xe4,a,MIT,s\n", "not UTF-8"),
        (b"1,s,Canary7f3a\rx,a,MIT,s\n", "not CSV"),
        (b",s,p,a,MIT,s\n", "field id or subject is blank"),
        (b"1,s," + b"x" * 10_000_000 + b",a,MIT,s\n", f"longer than {MAX_EXAMPLE_BYTES} bytes"),
        (b'1,s,"' + b"x\n" * 5_000_000 + b'",a,MIT,s\n', f"longer than {MAX_EXAMPLE_BYTES} bytes"),
        (b'1,s,"' + b'""' * 500_000 + b"x,a,MIT,s\n" + b'"x\n', "a quote out of place"),
    ],
    ids=range(11),
)
def test_csv_rows_that_are_unreadable(tmp_path: Path, line: bytes, reason: str) -> None:
    assert csv_reasons(tmp_path, GOOD, b"\n", line, GOOD) == [(3, reason)]
    assert len(rows_of(CSV, tmp_path)) == 3


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    rest = GOOD * 200_000
    (tmp_path / "data.csv").write_bytes(HEADER + GOOD + b'2,s,"p,a,MIT,s\n' + rest)
    tracemalloc.start()
    rows = rows_of(CSV, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reasons_of(rows) == [(2, "a quote that is not closed")]
    assert ids_of(rows) == ["1"]
    assert peak < 8 * MAX_EXAMPLE_BYTES


def test_csv_cells_mean_what_they_say(tmp_path: Path) -> None:
    header = HEADER.replace(b"\n", b",consent,similarity,split\r\n")
    lines = (
        b'1,s,"a, ""b""\nc",,,s,,,\r\n',
        b"2,s,p,a,MIT,s,perhaps,,\n",
        b"3,s,p,a,MIT,s,,inf,\n",
        b"4,s,p,a,MIT,s,,1_0,",
    )
    reasons = csv_reasons(tmp_path, *lines, header=b"\xef\xbb\xbf" + header)
    assert reasons == [
        (2, "field consent is not true or false"),
        (3, "field similarity is not a number"),
        (4, "field similarity is not a number"),
    ]
    assert rows_of(CSV, tmp_path)[0] == Example(1, "1", "s", 'a, "b"\nc', "", "NOASSERTION", "s")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "header line: no header line"),
        (b"id,subject,prompt,answer,source,id\n", "two columns of the same name"),
        (b"id,subject,prompt,source\n", "column answer missing (field answer)"),
        (HEADER.decode().encode("utf-16"), "UTF-16 text"),
        (b"\xe4,Canary7f3a\n", "header line: not UTF-8"),
        (b'"Canary7f3a\n', "header line: a quote that is not closed"),
        (b"Canary7f3a" * 200_000, f"header line: longer than {MAX_EXAMPLE_BYTES} bytes"),
    ],
    ids=range(7),
)
def test_csv_headers_that_are_refused(tmp_path: Path, header: bytes, reason: str) -> None:
    (tmp_path / "data.csv").write_bytes(header)
    with unavailable(reason):
        rows_of(CSV, tmp_path)


def test_empty_sets_and_estimates(tmp_path: Path) -> None:
    assert csv_reasons(tmp_path) == []
    assert count_hint(CSV, tmp_path) == 0
    write_jsonl(tmp_path / "data.jsonl", records(20_000))
    hint = count_hint(JSONL, tmp_path)
    assert hint is not None
    assert 0.8 < hint / sum(1 for _ in read_source(JSONL, tmp_path)) < 1.2
