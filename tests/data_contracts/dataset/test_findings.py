"""Findings of good and of broken data sets: a bad line is a finding, and no finding holds text."""

import json
import tracemalloc
from pathlib import Path

import pytest

from data_contracts.dataset.findings import COLUMN_TYPES, Findings, collect_findings, split_of
from data_contracts.dataset.licence import LicencePolicy
from data_contracts.dataset.records import MAX_LINE_BYTES, UnreadableRow, read_records
from tests.data_contracts.dataset.contract_samples import (
    sample_record,
    sample_records,
    write_lines,
)

KEY = b"k" * 32
PINNED_HELD_OUT = [9, 12, 14, 19, 23]
GOOD = json.dumps(sample_record(1)).encode()


def findings_of(path: Path, key: bytes = KEY) -> Findings:
    return collect_findings(read_records(path), key, LicencePolicy(["MIT"]))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
        (b"\xef\xbb\xbf" + GOOD, "not JSON"),
        (b"[" * 500_000, "not JSON"),
        (b'{"x": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"id": "a", "id": "b"}', "a field twice"),
        (json.dumps(sample_record(1, answer=None)).encode(), "field answer missing"),
        (json.dumps(sample_record(1, prompt=7)).encode(), "field prompt is not text"),
        (json.dumps(sample_record(1, licence=["MIT"])).encode(), "field licence is not text"),
        (json.dumps(sample_record(1, answer="\ud800")).encode(), "half a surrogate pair"),
        (json.dumps(sample_record(1, subject=" ")).encode(), "field id or subject is blank"),
        (b'{"id": "' + b"x" * 10_000_000 + b'"}', f"longer than {MAX_LINE_BYTES} bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_line_is_a_finding(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write_lines(tmp_path / "data.jsonl", [GOOD, b"", line, GOOD])
    findings = findings_of(path)
    assert findings.table["readable"].tolist() == [True, False, True]
    assert len(findings.notes) == 1
    assert findings.notes[0].startswith("row 3: unreadable")
    assert reason in findings.notes[0]
    assert findings.licence_ids == {"MIT": 2, "NOASSERTION": 1}


def test_a_long_line_is_never_held_in_memory(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", [b"x" * 50_000_000, GOOD])
    tracemalloc.start()
    rows = list(read_records(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(rows[0], UnreadableRow)
    assert len(rows) == 2
    assert peak < 8 * MAX_LINE_BYTES


def test_last_line_without_newline_counts(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(GOOD)
    assert len(findings_of(path).table) == 1


def test_what_is_found_per_record(tmp_path: Path) -> None:
    records = [
        sample_record(0, prompt="äö", answer="abc"),
        sample_record(1, prompt="äö", answer="abc"),
        sample_record(2, answer=" "),
        sample_record(3, licence=None),
        sample_record(4, licence="GPL-3.0-only", subject="subject-0"),
    ]
    table = findings_of(write_lines(tmp_path / "data.jsonl", records)).table
    assert list(table.columns) == list(COLUMN_TYPES)
    assert table["prompt_characters"].tolist()[:2] == [2, 2]
    assert table["answer_characters"].tolist()[:2] == [3, 3]
    assert table["is_duplicate"].tolist() == [False, True, False, False, False]
    assert table["is_empty"].tolist() == [False, False, True, False, False]
    assert table["licence"].tolist() == ["MIT", "MIT", "MIT", "NOASSERTION", "GPL-3.0-only"]
    assert table["licence_allowed"].tolist() == [True, True, True, False, False]
    assert table["subject_id"].nunique() == 4
    assert table["record_id"].nunique() == 5


def test_table_and_digest_hold_no_text(tmp_path: Path) -> None:
    canary = "canary-7f3a"
    fields = ("id", "subject", "prompt", "answer", "source")
    records = [sample_record(n, **{f: f"{canary} {f} {n}" for f in fields}) for n in range(30)]
    findings = findings_of(write_lines(tmp_path / "data.jsonl", [*records, canary.encode()]))
    leaving = findings.table.to_csv() + findings.digest + repr(findings.licence_ids)
    assert canary not in leaving + " ".join(findings.notes)


def test_digest_depends_on_key_and_on_every_text(tmp_path: Path) -> None:
    records = sample_records(10)
    path = write_lines(tmp_path / "data.jsonl", records)
    digest = findings_of(path).digest
    assert findings_of(path).digest == digest
    assert findings_of(path, b"q" * 32).digest != digest
    records[3]["answer"] += "."
    assert findings_of(write_lines(path, records)).digest != digest
    with pytest.raises(ValueError, match="32 bytes or more"):
        findings_of(path, b"short")


def test_split_is_a_fifth_and_never_moves() -> None:
    splits = [split_of(f"record-{n}") for n in range(5000)]
    assert 0.18 < splits.count("heldout") / len(splits) < 0.22
    assert [n for n in range(30) if splits[n] == "heldout"] == PINNED_HELD_OUT


def test_notes_are_bounded(tmp_path: Path) -> None:
    findings = findings_of(write_lines(tmp_path / "data.jsonl", [b"x"] * 1500))
    assert len(findings.notes) == 1001
    assert findings.notes[-1] == "500 more"
