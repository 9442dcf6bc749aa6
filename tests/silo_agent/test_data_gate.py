"""The gate on good, bad, absent and changing data, and what may leave a silo afterwards."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.findings import split_of
from data_contracts.errors import DataStewardError, SiloOperatorError
from data_contracts.records.verdict import Verdict
from silo_agent.data_gate import GateOutcome, SplitFiles, check_data, write_splits
from tests.data_contracts.dataset.contract_samples import (
    sample_contract,
    sample_record,
    sample_records,
    write_lines,
)

KEY = b"k" * 32
NOW = datetime(2027, 1, 1, tzinfo=UTC)


def data_file(root: Path) -> Path:
    return root / "sets" / "records.jsonl"


def check(root: Path, contract: DataContract | None = None) -> GateOutcome:
    return check_data(contract or sample_contract(), root, KEY, now=NOW)


def splits(root: Path, into: Path, digest: str) -> SplitFiles:
    return write_splits(sample_contract(), root, into, findings_key=KEY, findings_digest=digest)


def failing(outcome: GateOutcome) -> list[str]:
    return [rule.rule for rule in outcome.outcomes if not rule.success]


def test_good_data_passes(tmp_path: Path) -> None:
    write_lines(data_file(tmp_path), sample_records())
    outcome = check(tmp_path)
    assert outcome.passed
    assert failing(outcome) == []
    assert outcome.contract_digest == sample_contract().digest
    assert outcome.expires_at == sample_contract().expires_at
    assert [(cell.licence, cell.records) for cell in outcome.licences] == [("MIT", 40)]
    expected = [split_of(f"record-{n}") for n in range(40)]
    assert outcome.train_records == expected.count("train")
    assert outcome.heldout_records == expected.count("heldout")
    assert check(tmp_path) == outcome


def test_expired_contract_fails_without_reading_data(tmp_path: Path) -> None:
    contract = sample_contract()
    outcome = check_data(contract, tmp_path / "none", KEY, now=contract.expires_at)
    assert not outcome.passed
    assert failing(outcome) == ["contract.current"]
    just_before = check_data(
        contract, tmp_path / "none", KEY, now=contract.expires_at - timedelta(seconds=1)
    )
    assert failing(just_before) == ["data.available"]


def test_missing_data_fails_by_rule(tmp_path: Path) -> None:
    assert failing(check(tmp_path)) == ["data.available"]
    data_file(tmp_path).mkdir(parents=True)
    assert failing(check(tmp_path)) == ["data.available"]


def test_a_link_out_of_the_data_root_fails_by_rule(tmp_path: Path) -> None:
    outside = write_lines(tmp_path / "outside.jsonl", sample_records())
    root = tmp_path / "root"
    data_file(root).parent.mkdir(parents=True)
    data_file(root).symlink_to(outside)
    outcome = check(root)
    assert failing(outcome) == ["data.available"]
    assert "outside the data root" in outcome.operator_notes[0]


def test_empty_set_fails_by_rule(tmp_path: Path) -> None:
    write_lines(data_file(tmp_path), [])
    assert {"records.minimum", "cohort.minimum"} <= set(failing(check(tmp_path)))


def test_malformed_rows_fail_and_only_the_operator_sees_where(tmp_path: Path) -> None:
    broken: list[dict[str, Any] | bytes] = [b"{broken", sample_record(50, prompt=3)]
    write_lines(data_file(tmp_path), [*sample_records(), *broken])
    outcome = check(tmp_path)
    assert failing(outcome) == ["records.readable"]
    assert outcome.operator_notes == (
        "row 41: unreadable, not JSON",
        "row 42: unreadable, field prompt is not text",
    )
    readable = next(o for o in outcome.outcomes if o.rule == "records.readable")
    assert readable.unexpected_count is None
    assert [cell.records for cell in outcome.licences] == [None, None]


def test_a_warning_does_not_stop_training(tmp_path: Path) -> None:
    write_lines(data_file(tmp_path), sample_records())
    strict = ("max_value: 500", "max_value: 3")
    contract = sample_contract(("severity: critical", "severity: warning"), strict)
    outcome = check(tmp_path, contract)
    assert outcome.passed
    assert failing(outcome) == ["contract.answer-length"]
    assert not check(tmp_path, sample_contract(strict)).passed


def test_canary_does_not_leave(tmp_path: Path) -> None:
    canary = "Canary7f3a"
    fields = ("id", "subject", "prompt", "answer", "source")
    rows = [
        sample_record(n, licence=licence, **{f: f"{canary} {f} {n}" for f in fields})
        for n, licence in enumerate(["MIT"] * 30 + [canary, f"MIT OR {canary}"] * 12)
    ]
    rows.append(sample_record(99, licence=f"LicenseRef-{canary}"))
    path = tmp_path / canary / f"{canary}.jsonl"
    write_lines(path, [*rows, f'{{"{canary}'.encode()])
    contract = sample_contract(("sets/records.jsonl", f"{canary}/{canary}.jsonl"))
    outcome = check(tmp_path, contract)
    verdict = Verdict(
        federation="fed-one",
        issued_at=NOW,
        run="run-one",
        round=1,
        attempt=1,
        plan_digest="0" * 64,
        silo="silo-one",
        contract_digest=outcome.contract_digest,
        findings_digest=outcome.findings_digest,
        passed=outcome.passed,
        outcomes=outcome.outcomes,
        licences=outcome.licences,
        expires_at=outcome.expires_at,
    )
    leaving = rfc8785.dumps(verdict.model_dump(mode="json")).decode()
    assert canary.lower() not in leaving.lower()
    assert [cell.licence for cell in outcome.licences] == ["MIT", "NOASSERTION"]
    missing = check(tmp_path / canary, contract)
    assert canary not in repr(replace(missing, operator_notes=()))


def test_splits_hold_prompt_and_answer_only(tmp_path: Path) -> None:
    rows = sample_records()
    write_lines(data_file(tmp_path), rows)
    outcome = check(tmp_path)
    files = splits(tmp_path, tmp_path / "out", outcome.findings_digest)
    assert (files.train_records, files.heldout_records) == (
        outcome.train_records,
        outcome.heldout_records,
    )
    for path, split in ((files.train, "train"), (files.heldout, "heldout")):
        assert path.stat().st_mode & 0o777 == 0o600
        written = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        assert written == [
            {"prompt": row["prompt"], "answer": row["answer"]}
            for row in rows
            if split_of(row["id"]) == split
        ]
    before = files.train.read_bytes()
    splits(tmp_path, tmp_path / "out", outcome.findings_digest)
    assert files.train.read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["heldout.jsonl", "train.jsonl"]


def test_what_may_not_be_trained_on_is_left_out(tmp_path: Path) -> None:
    bad: list[dict[str, Any] | bytes] = [
        sample_record(100, licence="GPL-3.0-only"),
        sample_record(101, answer=""),
        sample_record(102, prompt="What is number 1?", answer="It is the number 1."),
        b"not a record",
    ]
    write_lines(data_file(tmp_path), [*sample_records(), *bad])
    outcome = check(tmp_path)
    files = splits(tmp_path, tmp_path / "out", outcome.findings_digest)
    assert files.train_records + files.heldout_records == 40
    assert outcome.train_records + outcome.heldout_records == 40


def test_data_that_changed_after_the_check_is_not_written(tmp_path: Path) -> None:
    write_lines(data_file(tmp_path), sample_records())
    digest = check(tmp_path).findings_digest
    write_lines(data_file(tmp_path), [*sample_records(39), sample_record(39, answer="other")])
    with pytest.raises(DataStewardError, match="the very data that the contract was checked on"):
        splits(tmp_path, tmp_path / "out", digest)
    assert list((tmp_path / "out").iterdir()) == []
    data_file(tmp_path).unlink()
    with pytest.raises(DataStewardError, match="is not a file"):
        splits(tmp_path, tmp_path / "out", digest)


def test_a_folder_that_cannot_be_written_is_the_operators(tmp_path: Path) -> None:
    write_lines(data_file(tmp_path), sample_records())
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(SiloOperatorError, match="expected room and permission"):
        splits(tmp_path, blocked / "out", check(tmp_path).findings_digest)
