"""Findings of good and of broken data sets: a bad row is a finding, and no finding holds text."""

import json
import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_contracts.dataset.examples import MAX_EXAMPLE_BYTES, Example
from data_contracts.dataset.findings.checks import Checks, References
from data_contracts.dataset.findings.collect import BATCH_RECORDS, batches, collect_findings
from data_contracts.dataset.findings.columns import COLUMNS
from data_contracts.dataset.findings.splits import split_of
from data_contracts.dataset.findings.store import usable_rows
from tests.data_contracts.dataset.contract_samples import (
    sample_contract,
    sample_record,
    sample_records,
    write_lines,
)
from tests.data_contracts.dataset.findings_samples import KEY, NOW, look

pytestmark = pytest.mark.long

PINNED_HELD_OUT = [9, 12, 14, 19, 23]
GOOD = json.dumps(sample_record(1)).encode()
OTHER = json.dumps(sample_record(2)).encode()
FILE = Path("sets/records.jsonl")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (json.dumps(sample_record(1, prompt=7)).encode(), "field prompt is not text"),
        (b'{"id": "' + b"x" * 10_000_000 + b'"}', f"longer than {MAX_EXAMPLE_BYTES} bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unreadable_row_is_a_finding(tmp_path: Path, line: bytes, reason: str) -> None:
    write_lines(tmp_path / FILE, [GOOD, line, OTHER])
    looked = look(tmp_path)
    assert looked.column("readable") == [1, 0, 1]
    assert looked.column("usable") == [1, 0, 1]
    assert len(looked.findings.notes) == 1
    assert looked.findings.notes[0].startswith("row 2: unreadable")
    assert reason in looked.findings.notes[0]
    assert looked.findings.licence_ids == {"MIT": 2, "NOASSERTION": 1}


def test_what_is_found_per_record(tmp_path: Path) -> None:
    records = [
        sample_record(0, prompt="äö", answer="abc"),
        sample_record(1, prompt="äö", answer="abc", subject="subject-0"),
        sample_record(2, answer=" "),
        sample_record(3, licence=None),
        sample_record(4, licence="GPL-3.0-only", subject="subject-0"),
        sample_record(5, answer="\u200b"),
        sample_record(6, prompt="\ufeff\u2060 \u00ad"),
    ]
    write_lines(tmp_path / FILE, records)
    looked = look(tmp_path)
    assert looked.column("prompt_characters")[:2] == [2, 2]
    assert looked.column("is_duplicate") == [0, 1, 0, 0, 0, 0, 0]
    assert looked.column("duplicate_cluster")[:3] == [1, 1, None]
    assert looked.column("is_empty") == [0, 0, 1, 0, 0, 1, 1]
    assert looked.column("licence")[:5] == ["MIT", "MIT", "MIT", "NOASSERTION", "GPL-3.0-only"]
    assert looked.column("licence_allowed")[:5] == [1, 1, 1, 0, 0]
    assert len(set(looked.column("subject_id"))) == 5
    assert len(set(looked.column("record_id"))) == 7
    assert looked.column("usable") == [1, 0, 0, 0, 0, 0, 0]
    assert [*usable_rows(looked.findings.path)] == [(1, "train", None)]


def test_the_file_and_its_digest_hold_no_text(tmp_path: Path) -> None:
    canary = "canary7f3a"
    fields = ("id", "subject", "prompt", "answer", "source")
    records = [sample_record(n, **{f: f"{canary} {f} {n}" for f in fields}) for n in range(30)]
    write_lines(tmp_path / FILE, [*records, canary.encode()])
    looked = look(tmp_path)
    assert canary.encode() not in looked.findings.path.read_bytes()
    assert canary not in repr(looked.findings)
    assert looked.findings.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in looked.findings.path.parent.iterdir()] == ["findings.sqlite"]


def test_digest_depends_on_key_and_on_every_text(tmp_path: Path) -> None:
    records = sample_records(10)
    write_lines(tmp_path / FILE, records)
    digest = look(tmp_path).findings.digest
    assert look(tmp_path).findings.digest == digest
    assert look(tmp_path, key=b"q" * 32).findings.digest != digest
    records[3]["answer"] += "."
    write_lines(tmp_path / FILE, records)
    assert look(tmp_path).findings.digest != digest
    with pytest.raises(ValueError, match="32 bytes or more"):
        look(tmp_path, key=b"short")


def test_split_is_a_fifth_and_never_moves() -> None:
    splits = [split_of(f"record-{n}") for n in range(5000)]
    assert 0.18 < splits.count("heldout") / len(splits) < 0.22
    assert [n for n in range(30) if splits[n] == "heldout"] == PINNED_HELD_OUT


def test_a_subject_is_in_one_split_only(tmp_path: Path) -> None:
    records = [sample_record(n, subject=f"patient-{n % 12}") for n in range(60)]
    write_lines(tmp_path / FILE, records)
    looked = look(tmp_path)
    placed = set(zip(looked.column("subject_id"), looked.column("split"), strict=True))
    assert len(placed) == 12
    assert not any(looked.column("leaks"))


def test_notes_are_bounded(tmp_path: Path) -> None:
    write_lines(tmp_path / FILE, [b"x"] * 1500)
    looked = look(tmp_path)
    assert len(looked.findings.notes) == 1001
    assert looked.findings.notes[-1] == "500 more"


def many_records(count: int) -> Iterator[Example]:
    """`count` different records, none of which exists before it is asked for."""
    for n in range(1, count + 1):
        text = " ".join(f"word{n * 7 + k}" for k in range(20))
        yield Example(n, f"id{n}", f"s{n}", f"Question {n}?", text, "MIT", "made")


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Python's own memory; what SQLite may hold is bounded by its cache."""
    peaks = []
    for count in (100, 2 * BATCH_RECORDS, 4 * BATCH_RECORDS):
        checks = Checks(sample_contract(), References(), NOW)
        tracemalloc.start()
        found = collect_findings(many_records(count), checks, KEY, tmp_path / f"{count}.sqlite")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.records == count
    # The first run also loads modules.
    assert peaks[2] < 1.2 * peaks[1]


def test_a_batch_is_bounded_by_its_text_too() -> None:
    long = "x" * 1_000_000
    rows = [Example(n, f"i{n}", "s", "", long, "MIT", "made") for n in range(1, 12)]
    assert [len(batch) for batch in batches(rows)] == [5, 5, 1]


def test_the_table_has_the_documented_columns(tmp_path: Path) -> None:
    write_lines(tmp_path / FILE, sample_records(3))
    with sqlite3.connect(look(tmp_path).findings.path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(findings)")]
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
    assert columns == list(COLUMNS)
    assert tables == ["findings", "summary"]
