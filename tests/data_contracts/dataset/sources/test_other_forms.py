"""Files as institutions export them: read where they are plain, else refused with the cause."""

import bz2
import gzip
import json
import lzma
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, Example
from data_contracts.dataset.sources.data_source import DataSource
from data_contracts.dataset.sources.field_values import SPLITS
from data_contracts.dataset.sources.places import DataRoot
from data_contracts.dataset.sources.reading import count_hint, read_source, source_files
from tests.data_contracts.dataset.sources.source_samples import (
    ids_of,
    reasons_of,
    records,
    renamed,
    rows_of,
    unavailable,
    write_parquet,
)

JSONL = DataSource(format="jsonl", path="data.jsonl")
CSV = DataSource(format="csv", path="data.csv")
FOLDER = DataSource(format="huggingface", path="data")
CHAT = DataSource(
    format="jsonl", path="data.jsonl", fields=renamed(prompt="messages", answer="messages")
)
BOM = b"\xef\xbb\xbf"
HEADER = "id;subject;prompt;answer;source\n"

datasets.disable_progress_bars()


def lines_of(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read_jsonl(root: Path, data: bytes) -> list[str]:
    (root / "data.jsonl").write_bytes(data)
    rows = rows_of(JSONL, root)
    assert reasons_of(rows) == []
    return ids_of(rows)


@pytest.mark.parametrize("mark", [b"", BOM])
@pytest.mark.parametrize("packed", [bytes, gzip.compress])
def test_json_lines_and_arrays_with_a_mark_or_compressed(
    tmp_path: Path, mark: bytes, packed: Any
) -> None:
    rows = records(3)
    ids = ["record-0", "record-1", "record-2"]
    assert read_jsonl(tmp_path, packed(mark + lines_of(rows))) == ids
    for indent in (None, 2):
        assert read_jsonl(tmp_path, packed(mark + json.dumps(rows, indent=indent).encode())) == ids
    assert read_jsonl(tmp_path, packed(mark + b" [ ] \n")) == []


def test_several_gzip_members_and_an_estimate(tmp_path: Path) -> None:
    rows = records(30_000)
    data = gzip.compress(lines_of(rows[:20_000])) + gzip.compress(lines_of(rows[20_000:]))
    assert len(read_jsonl(tmp_path, data)) == 30_000
    hint = count_hint(JSONL, tmp_path)
    assert hint is not None
    assert 0.5 < hint / 30_000 < 2


def test_what_expands_far_is_read_line_by_line(tmp_path: Path) -> None:
    line = b"x" * 40_000_000
    (tmp_path / "data.jsonl").write_bytes(gzip.compress(line + b"\n" + lines_of(records(1)), 1))
    tracemalloc.start()
    rows = rows_of(JSONL, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reasons_of(rows) == [(1, f"longer than {MAX_EXAMPLE_BYTES} bytes")]
    assert ids_of(rows) == ["record-0"]
    assert peak < 16 * MAX_EXAMPLE_BYTES


def test_members_of_an_array_that_are_no_records(tmp_path: Path) -> None:
    good = json.dumps(records(1)[0])
    long = json.dumps({"x": "y" * MAX_EXAMPLE_BYTES})
    (tmp_path / "data.jsonl").write_text(f"[{good}, 7, [1], {long}, {good}]")
    rows = rows_of(JSONL, tmp_path)
    assert reasons_of(rows) == [
        (2, "not a JSON object"),
        (3, "not a JSON object"),
        (4, f"longer than {MAX_EXAMPLE_BYTES} bytes"),
    ]
    assert len(rows) == 5


@pytest.mark.parametrize(
    ("text", "reason", "row"),
    [
        ("[%s, {]", "a member of the JSON array that is not JSON", 2),
        ("[%s %s]", "no comma or end behind a member", 2),
        ("[%s] x", "something behind the end", 2),
        ("[%s", "no comma or end behind a member", 2),
        ('[%s, {"a": 1, "a": 2}]', "with a field twice", 2),
        ('[%s, {"a": NaN}]', "not JSON", 2),
        ("[%s,", "not JSON", 2),
        ("[" * 100_000, "not JSON", None),
        ('[%s, {"a": "' + "x" * (3 * MAX_EXAMPLE_BYTES), "not JSON, or longer than", 2),
    ],
    ids=range(9),
)
def test_an_array_that_ends_early(tmp_path: Path, text: str, reason: str, row: int | None) -> None:
    good = json.dumps(records(1)[0])
    (tmp_path / "data.jsonl").write_text(text.replace("%s", good))
    with unavailable(reason):
        rows_of(JSONL, tmp_path)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (bz2.compress(b"x"), "bzip2"),
        (lzma.compress(b"x"), "compressed with xz"),
        (b"\x28\xb5\x2f\xfd1234", "zstd"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b"SQLite format 3\x00rest", "SQLite"),
        (gzip.compress(b"PK\x03\x04rest", mtime=0), "ZIP"),
        (b'{\n  "id": "1"\n}\n', "one JSON object over several lines"),
    ],
)
def test_another_kind_of_file_is_named_once(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "data.jsonl").write_bytes(data)
    with unavailable(what):
        rows_of(JSONL, tmp_path)
    if not data.startswith(b"{"):
        (tmp_path / "data.csv").write_bytes(data)
        with unavailable(what):
            rows_of(CSV, tmp_path)


def test_a_workbook_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.csv", "w") as book:
        book.writestr("xl/workbook.xml", "x")
    with unavailable("an Excel workbook"):
        rows_of(CSV, tmp_path)


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_other_separators(tmp_path: Path, mark: str) -> None:
    lines = 'id;subject;prompt;answer;source\n1;s;"a;b, c";x;y\n'.replace(";", mark)
    for data in (lines.encode(), BOM + lines.encode(), gzip.compress(lines.encode())):
        (tmp_path / "data.csv").write_bytes(data)
        (record,) = rows_of(CSV, tmp_path)
        assert isinstance(record, Example)
        assert record.prompt == f"a{mark}b, c"


def test_excel_says_what_parts_its_cells(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(f"sep=;\r\n{HEADER}1;s;p,q;a;x\n")
    (record,) = rows_of(CSV, tmp_path)
    assert isinstance(record, Example)
    assert (record.row, record.prompt) == (1, "p,q")


def test_a_header_with_commas_stays_one(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text('id,subject,prompt,answer,source,"a;b"\n1,s,p;q,a,x,y\n')
    (record,) = rows_of(CSV, tmp_path)
    assert isinstance(record, Example)
    assert record.prompt == "p;q"
    (tmp_path / "data.csv").write_text("a;b,c\n")
    with unavailable("column id missing"):
        rows_of(CSV, tmp_path)


def chat(*said: tuple[str, str], keys: tuple[str, str] = ("role", "content")) -> list[Any]:
    return [dict(zip(keys, each, strict=True)) for each in said]


@pytest.mark.parametrize(
    "messages",
    [
        chat(("user", "q"), ("assistant", "a")),
        chat(("human", "q"), ("gpt", "a"), keys=("from", "value")),
        json.dumps(chat(("user", "q"), ("assistant", "a"))),
    ],
)
def test_a_conversation_of_one_turn(tmp_path: Path, messages: Any) -> None:
    (tmp_path / "data.jsonl").write_bytes(lines_of([{**records(1)[0], "messages": messages}]))
    (record,) = rows_of(CHAT, tmp_path)
    assert isinstance(record, Example)
    assert (record.prompt, record.answer) == ("q", "a")


@pytest.mark.parametrize(
    "messages",
    [
        chat(("system", "s"), ("user", "q"), ("assistant", "a")),
        chat(("user", "q"), ("assistant", "a"), ("user", "q"), ("assistant", "a")),
        chat(("assistant", "a"), ("user", "q")),
        [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant"}],
        "not JSON",
        [],
        7,
        [1, 2],
    ],
    ids=range(8),
)
def test_a_conversation_that_is_not_one_question(tmp_path: Path, messages: Any) -> None:
    (tmp_path / "data.jsonl").write_bytes(lines_of([{**records(1)[0], "messages": messages}]))
    (reason,) = reasons_of(rows_of(CHAT, tmp_path))
    assert reason[1].startswith("field prompt (column messages) is no conversation of one user's")


@pytest.mark.parametrize(
    ("place", "more", "is_one"),
    [
        (0, {"weight": 0, "name": "ann"}, True),
        (1, {"weight": 1, "tool_calls": None, "id": 3}, True),
        (1, {"weight": 0}, False),
        (1, {"tool_calls": [{"name": "f"}]}, False),
        (0, {"images": ["x"]}, False),
        (0, {"from": "human", "value": "another"}, False),
    ],
    ids=range(6),
)
def test_what_a_message_has_beside_its_text(
    tmp_path: Path, place: int, more: dict[str, Any], is_one: bool
) -> None:
    messages = chat(("user", "q"), ("assistant", "a"))
    messages[place] |= more
    (tmp_path / "data.jsonl").write_bytes(lines_of([{**records(1)[0], "messages": messages}]))
    (found,) = rows_of(CHAT, tmp_path)
    if is_one:
        assert isinstance(found, Example) and (found.prompt, found.answer) == ("q", "a")
    else:
        ((_, reason),) = reasons_of([found])
        assert "no conversation of one user's text" in reason and "has a message" in reason


def test_a_conversation_that_is_missing_or_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_bytes(lines_of(records(1)))
    reasons = reasons_of(rows_of(CHAT, tmp_path))
    assert reasons == [(1, "field prompt (column messages) missing")]
    text = json.dumps(chat(("user", "q"), ("assistant", "a")))
    write_parquet(tmp_path / "data.parquet", [{**records(1)[0], "messages": text}])
    source = CHAT.model_copy(update={"format": "parquet", "path": "data.parquet"})
    (record,) = rows_of(source, tmp_path)
    assert isinstance(record, Example)
    assert (record.prompt, record.answer) == ("q", "a")
    nested = pa.Table.from_pylist([{**records(1)[0], "messages": json.loads(text)}])
    pq.write_table(nested, tmp_path / "data.parquet")
    (record,) = rows_of(source, tmp_path)
    assert isinstance(record, Example)
    assert (record.prompt, record.answer) == ("q", "a")


@pytest.mark.parametrize("name", sorted(SPLITS))
def test_splits_of_other_names(tmp_path: Path, name: str) -> None:
    if name.isidentifier():
        part = datasets.Dataset.from_list(records(1))
        datasets.DatasetDict({name: part}).save_to_disk(tmp_path / "data")
        (record,) = rows_of(FOLDER, tmp_path)
        assert isinstance(record, Example)
        assert record.split == SPLITS[name]
    (tmp_path / "data.jsonl").write_bytes(lines_of(records(1, split=name.upper())))
    (record,) = rows_of(JSONL, tmp_path)
    assert isinstance(record, Example)
    assert record.split == SPLITS[name]


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("snapshots/abc/x.parquet", "the cache of a hub (blobs, refs, snapshots)"),
        ("dataset_info.json", "the cache of load_dataset"),
        ("data/train-00000-of-00001.parquet", "a copy of a hub's repository"),
    ],
)
def test_a_folder_of_a_hub_is_named(tmp_path: Path, place: str, what: str) -> None:
    path = tmp_path / "data" / place
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with unavailable(f"{what}, where a folder of save_to_disk is expected"):
        rows_of(FOLDER, tmp_path)


@pytest.mark.parametrize("source", [JSONL, CSV, FOLDER])
def test_a_file_of_two_names_is_read_only_where_that_is_allowed(
    tmp_path: Path, source: DataSource
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "data.jsonl").write_bytes(lines_of(records(1)))
    (root / "data.csv").write_text(HEADER + "record-0;s;p;a;x\n")
    datasets.Dataset.from_list(records(1)).save_to_disk(root / "data")
    (file, *_) = source_files(source, root)
    os.link(file, tmp_path / "elsewhere")
    for reading in (lambda: rows_of(source, root), lambda: source_files(source, root)):
        with unavailable("2 names (hard links), of which some may lie outside the data root"):
            reading()
    allowed = DataRoot(root, hard_links=True)
    assert source_files(source, allowed)
    assert ids_of(read_source(source, allowed)) == ["record-0"]


def test_symbolic_links_inside_the_root_are_followed(tmp_path: Path) -> None:
    """As the files of a hub's cache are: names in one folder, bytes in another."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "abc").write_bytes(lines_of(records(1)))
    (tmp_path / "data.jsonl").symlink_to("blobs/abc")
    assert ids_of(rows_of(JSONL, tmp_path)) == ["record-0"]
