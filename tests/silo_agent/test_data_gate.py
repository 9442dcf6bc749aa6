"""The gate on good, bad, absent and changing data, and what may leave a silo afterwards."""

import json
import os
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from data_contracts.dataset.contract.agreement import Parties
from data_contracts.dataset.findings.splits import split_of
from data_contracts.dataset.licence_policy import canonical_licence_id
from data_contracts.errors import DataStewardError, SiloOperatorError
from data_contracts.protocol.records.verdict import MAX_LICENCES
from silo_agent.gate.contract_gate import BASELINE_NAME, GATE_DIRECTORY, SPLITS_DIRECTORY
from silo_agent.gate.outcome import OUTCOME_NAME
from tests.data_contracts.dataset.contract_samples import (
    replaced,
    sample_contract,
    sample_record,
    sample_records,
    write_lines,
)
from tests.silo_agent.gate_samples import SampleSilo, failing


@pytest.fixture
def silo(tmp_path: Path) -> SampleSilo:
    return SampleSilo(tmp_path)


def test_good_data_passes(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    outcome = silo.check()
    assert outcome.passed
    assert failing(outcome) == []
    assert outcome.contract_digest == sample_contract().digest
    assert outcome.expires_at == sample_contract().terms.expires
    assert [(cell.licence, cell.records) for cell in outcome.licences] == [("MIT", 40)]
    expected = [split_of(f"subject-{n}") for n in range(40)]
    assert outcome.train_records + outcome.heldout_records <= 40
    assert outcome.heldout_records == expected.count("heldout")
    assert silo.check() == outcome


def test_records_and_subjects_of_the_training_split_are_counted(silo: SampleSilo) -> None:
    records = list(sample_records())
    for n, record in enumerate(records):
        record["subject"] = f"subject-{n // 2}"
    silo.write_records(records)
    outcome = silo.check()
    assert outcome.key is not None
    table = silo.gate.findings(outcome)
    assert table is not None
    with sqlite3.connect(table) as connection:
        query = "SELECT subject_id FROM findings WHERE usable AND split = 'train'"
        used = [row[0] for row in connection.execute(query)]
    assert outcome.units("record") == len(used) == outcome.train_records
    assert outcome.units("subject") == len(set(used)) == outcome.train_subjects
    assert 0 < len(set(used)) < len(used)


def test_why_there_is_no_contract_is_logged_once_per_change(
    silo: SampleSilo, caplog: pytest.LogCaptureFixture
) -> None:
    """Every status that may leave asks for it, for as long as training takes."""
    parties = Parties("fed-one", "silo-one", frozenset(), frozenset())
    gate = silo.gate
    assert [gate.terms(parties) for _ in range(3)] == [None] * 3, "nobody has signed it"
    silo.write_contract("not a contract")
    assert [gate.terms(parties) for _ in range(3)] == [None] * 3
    assert len(caplog.records) == len({record.message for record in caplog.records}) == 2


def test_expired_contract_fails_without_reading_data(silo: SampleSilo) -> None:
    silo.clock.sleep((sample_contract().terms.expires - silo.clock.now()).total_seconds() - 1)
    assert failing(silo.check()) == ["data.available"]
    silo.clock.sleep(1)
    outcome = silo.check()
    assert not outcome.passed
    assert failing(outcome) == ["contract.current"]


def lines(*extra: dict[str, Any] | bytes) -> bytes:
    rows = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in extra]
    return b"".join(row + b"\n" for row in rows)


def unreadable(path: Path) -> None:
    path.mkdir(parents=True)


def outside(path: Path) -> None:
    target = write_lines(path.parents[3] / "outside.jsonl", sample_records())
    path.parent.mkdir(parents=True)
    path.symlink_to(target)


def absent(path: Path) -> None:
    path.parent.mkdir(parents=True)


@pytest.mark.parametrize("damage", [absent, unreadable, outside])
def test_data_that_cannot_be_had_fails_by_rule(tmp_path: Path, damage: Any) -> None:
    silo = SampleSilo(tmp_path / "a" / "b")
    damage(silo.data_file)
    outcome = silo.check()
    assert failing(outcome) == ["data.available"]
    assert len(outcome.operator_notes) == 1
    assert "records.jsonl" in outcome.operator_notes[0]


BAD_ROWS: dict[str, tuple[bytes, str]] = {
    "broken JSON": (b"{broken", "not JSON"),
    "mixed types": (json.dumps(sample_record(50, prompt=3)).encode(), "field prompt is not text"),
    "wrong encoding": (
        json.dumps(sample_record(51, answer="naïve"), ensure_ascii=False).encode("latin-1"),
        "not UTF-8",
    ),
    "ten megabytes": (b'{"id": "' + b"x" * 10_000_000 + b'"}', "longer than 1048576 bytes"),
    "half a surrogate": (
        json.dumps(sample_record(52, answer="\ud800")).encode(),
        "half a surrogate pair",
    ),
}


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_a_bad_row_is_a_refusal_with_its_number_for_the_operator_only(
    silo: SampleSilo, row: bytes, reason: str
) -> None:
    silo.write_records([*sample_records(), row])
    outcome = silo.check()
    assert failing(outcome) == ["records.readable"]
    assert outcome.operator_notes[0].startswith("row 41: unreadable")
    assert reason in outcome.operator_notes[0]
    readable = next(o for o in outcome.outcomes if o.rule == "records.readable")
    assert readable.unexpected_count is None
    assert "records.readable" in failing(silo.check()), "a kept refusal is a refusal"


def test_a_warning_does_not_stop_training(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    strict = ("max_value: 500", "max_value: 10")
    silo.write_contract(replaced(("severity: critical", "severity: warning"), strict))
    outcome = silo.check()
    assert outcome.passed
    assert failing(outcome) == ["contract.answer-length"]
    silo.write_contract(replaced(strict))
    assert not silo.check().passed


def test_splits_hold_prompt_and_answer_only(silo: SampleSilo) -> None:
    rows = sample_records()
    silo.write_records(list(rows))
    outcome = silo.check()
    files = silo.gate.splits(outcome.findings_digest)
    written = {}
    for path, split in ((files.train, "train"), (files.heldout, "heldout")):
        assert path.stat().st_mode & 0o777 == 0o600
        written[split] = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        of_split = [r for r in rows if split_of(r["subject"]) == split]
        expected = [{"prompt": row["prompt"], "answer": row["answer"]} for row in of_split]
        assert [row for row in expected if row in written[split]] == written[split]
    assert len(written["train"]) == outcome.train_records
    assert len(written["heldout"]) == outcome.heldout_records
    before = files.train.stat().st_mtime_ns
    silo.gate.splits(outcome.findings_digest)
    assert files.train.stat().st_mtime_ns == before, "the same outcome writes nothing again"
    names = sorted(p.name for p in (silo.home / SPLITS_DIRECTORY).iterdir())
    assert names == ["heldout.jsonl", "made-for.json", "train.jsonl", "train.units"]


def test_units_say_which_training_records_are_of_one_subject(silo: SampleSilo) -> None:
    rows = [dict(row, subject=f"Jane Roe {n // 3 % 7}") for n, row in enumerate(sample_records())]
    silo.write_records(rows)
    outcome = silo.check()
    files = silo.gate.splits(outcome.findings_digest)
    subjects = [row["subject"] for row in rows if split_of(row["subject"]) == "train"]
    order = list(dict.fromkeys(subjects))
    held = files.units.read_bytes()
    assert len(held) == 4 * outcome.train_records
    assert [*struct.unpack(f"<{outcome.train_records}I", held)] == [*map(order.index, subjects)]
    assert 1 < len(order) < len(subjects)
    assert files.units.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("is_there", [False, True])
def test_splits_without_the_units_that_they_were_made_with_are_made_anew(
    is_there: bool, silo: SampleSilo
) -> None:
    silo.write_records(list(sample_records()))
    found = silo.check().findings_digest
    files = silo.gate.splits(found)
    train, units = files.train.read_bytes(), files.units.read_bytes()
    files.units.unlink()
    if is_there:
        files.units.write_bytes(units[:-4] + b"\xff" * 4)
    assert silo.gate.splits(found).units.read_bytes() == units
    assert files.train.read_bytes() == train


def test_tokens_of_records_go_with_the_records(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    files = silo.gate.splits(silo.check().findings_digest)
    files.shards.mkdir()
    tokens = files.shards / "train-0123.tokens"
    tokens.write_bytes(b"what training made of them")
    silo.gate.splits(silo.check().findings_digest)
    assert tokens.exists(), "the data are what they were"
    silo.write_records(list(sample_records(39)))
    changed = silo.gate.splits(silo.check().findings_digest)
    assert changed.train.exists() and not files.shards.exists()


def test_what_may_not_be_trained_on_is_left_out(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    usable = silo.check()
    bad: list[dict[str, Any] | bytes] = [
        sample_record(100, licence="GPL-3.0-only"),
        sample_record(101, answer=""),
        sample_record(102, prompt="What is number 1?", answer="It is the number 1."),
        sample_record(103, answer="Write to jane.roe@hospital.example.com about bed 7."),
        b"not a record",
    ]
    silo.write_records([*sample_records(), *bad])
    outcome = silo.check()
    files = silo.gate.splits(outcome.findings_digest)
    text = files.train.read_text("utf-8") + files.heldout.read_text("utf-8")
    assert "jane.roe" not in text
    assert len(text.splitlines()) == usable.train_records + usable.heldout_records


def test_data_that_changed_after_the_check_is_not_written(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    digest = silo.check().findings_digest
    silo.write_records([*sample_records(39), sample_record(39, answer="another answer")])
    with pytest.raises(DataStewardError, match="the very data that the contract was checked on"):
        silo.gate.splits(digest)
    silo.data_file.unlink()
    with pytest.raises(DataStewardError, match="the very data that the contract was checked on"):
        silo.gate.splits(digest)
    assert not (silo.home / SPLITS_DIRECTORY).exists()


def test_a_folder_that_cannot_be_written_is_the_operators(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    digest = silo.check().findings_digest
    (silo.home / SPLITS_DIRECTORY).write_text("")
    with pytest.raises(SiloOperatorError, match="expected room and permission"):
        silo.gate.splits(digest)


UNCHANGED = """
import sys, time
from pathlib import Path
from tests.silo_agent.gate_samples import SampleSilo
silo = SampleSilo(Path({home!r}))
before = time.perf_counter()
outcome = silo.check()
seconds = time.perf_counter() - before
heavy = [m for m in ("great_expectations", "pyarrow", "presidio_analyzer") if m in sys.modules]
print(outcome.passed, seconds < 1, heavy)
"""


def test_an_unchanged_set_is_not_looked_at_again(silo: SampleSilo) -> None:
    """In a new process: no Great Expectations, no reader, no recogniser is even loaded."""
    silo.write_records(list(sample_records()))
    outcome = silo.check()
    kept = silo.home / GATE_DIRECTORY / str(outcome.key)
    made = (kept / "findings.sqlite").stat().st_mtime_ns
    script = UNCHANGED.format(home=str(silo.home))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n")[0] == "True True []"
    assert (kept / "findings.sqlite").stat().st_mtime_ns == made


def test_a_touched_file_is_read_but_not_looked_at_again(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    outcome = silo.check()
    os.utime(silo.data_file, (1, 1))
    assert silo.check() == outcome
    assert len(list((silo.home / GATE_DIRECTORY).iterdir())) == 1


def test_anything_that_decides_makes_a_new_outcome(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    first = silo.check()
    silo.write_records(list(sample_records(39)))
    second = silo.check()
    silo.write_contract(replaced(("value: 20", "value: 30")))
    third = silo.check()
    assert len({first.key, second.key, third.key}) == 3
    assert first.findings_digest != second.findings_digest


def test_an_edited_outcome_is_made_again(silo: SampleSilo) -> None:
    """Whoever edits a kept refusal into a pass gets the refusal back."""
    silo.write_records([*sample_records(), b"broken"])
    refused = silo.check()
    path = silo.home / GATE_DIRECTORY / str(refused.key) / OUTCOME_NAME
    sealed = json.loads(path.read_bytes())
    sealed["kept"] = sealed["kept"].replace('"passed":false', '"passed":true')
    path.write_text(json.dumps(sealed))
    assert silo.check() == refused
    path.write_text("garbage")
    assert silo.check() == refused


def test_retention_forgets_what_was_not_used(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    old = silo.check()
    folder = silo.home / GATE_DIRECTORY / str(old.key)
    silo.write_records(list(sample_records(39)))
    os.utime(folder / OUTCOME_NAME, (1, 1))
    silo.check()
    assert not folder.exists()


def test_retention_needs_no_check_to_forget(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    silo.gate.splits(silo.check().findings_digest)
    gate, splits = silo.home / GATE_DIRECTORY, silo.home / SPLITS_DIRECTORY
    mine = gate / "my-notes"
    mine.mkdir()
    os.utime(mine, (1, 1))
    silo.gate.forget_unused()
    assert (splits / "train.jsonl").exists() and len(list(gate.iterdir())) == 2
    for path in (*splits.iterdir(), *gate.glob(f"*/{OUTCOME_NAME}")):
        os.utime(path, (1, 1))
    contract = (silo.home / "contract.yaml").read_text()
    silo.write_contract("not a contract")
    silo.gate.forget_unused()
    assert splits.exists()
    silo.write_contract(contract)
    silo.gate.forget_unused()
    assert not splits.exists() and list(gate.iterdir()) == [mine]


def test_retention_deletes_training_files_that_nobody_reads(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    files = silo.gate.splits(silo.check().findings_digest)
    for path in (silo.home / SPLITS_DIRECTORY).iterdir():
        os.utime(path, (1, 1))
    silo.check()
    assert not files.train.exists()


def test_an_accepted_conditional_licence_passes(silo: SampleSilo) -> None:
    terms = (
        "  - property: fl.licenceAcceptances\n    value: [LicenseRef-HPO accepted by A. Person]\n"
    )
    silo.write_contract(replaced(("[MIT, ", "[LicenseRef-HPO, MIT, ")) + terms)
    silo.write_records([sample_record(n, licence="LicenseRef-HPO") for n in range(40)])
    assert silo.check().passed


def test_drift_is_measured_from_the_last_accepted_round(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    first = silo.check()
    verdict_like = first.findings_digest
    silo.gate.remember(verdict_like)
    assert silo.check() == first, "against itself nothing has drifted, and nothing is done again"
    longer = [sample_record(n, answer=f"{n} " + "x" * (20 * (1 + n % 9))) for n in range(40)]
    silo.write_records(list(longer))
    drifted = silo.check()
    assert failing(drifted) == ["drift.since_last_round"]
    silo.gate.remember("0" * 64)
    assert failing(silo.check()) == ["drift.since_last_round"], "another verdict changes nothing"


def test_opt_out_evidence_that_grows_old_is_looked_at_again(silo: SampleSilo) -> None:
    fields = "".join(
        f"      - {{name: {name}, logicalType: string}}\n"
        for name in ("tdm_reservation", "tdm_checked_at")
    )
    source = "      - {name: source, logicalType: string}\n"
    terms = "  - property: fl.optOut\n    value: {evidenceRequired: true, maxAgeDays: 30}\n"
    silo.write_contract(replaced((source, source + fields)) + terms)
    evidence = {"tdm_reservation": "0", "tdm_checked_at": "2026-12-20"}
    silo.write_records([sample_record(n, **evidence) for n in range(40)])
    outcome = silo.check()
    assert outcome.passed
    assert outcome.expires_at - silo.clock.now() < timedelta(days=31)
    silo.clock.sleep(timedelta(days=30).total_seconds())
    assert failing(silo.check()) == ["opt_out.evidence"]
    silo.write_records([sample_record(n, tdm_reservation="1") for n in range(40)])
    assert "opt_out.none" in failing(silo.check())


def test_bytes_that_were_swapped_behind_the_clock_are_looked_at(silo: SampleSilo) -> None:
    """Same size, same modification time: a copy with `cp -p` or `rsync -t` keeps both."""
    silo.write_records(list(sample_records()))
    before = silo.check()
    status = silo.data_file.stat()
    text = silo.data_file.read_bytes().replace(b"It is the number 7.", b"Is it the number 7?")
    silo.data_file.write_bytes(text)
    os.utime(silo.data_file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert silo.data_file.stat().st_size == status.st_size
    with pytest.raises(DataStewardError, match="the very data that the contract was checked on"):
        silo.gate.splits(before.findings_digest)
    assert silo.check().content_digest != before.content_digest


def test_training_files_that_were_edited_are_written_again(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    digest = silo.check().findings_digest
    train = silo.gate.splits(digest).train
    written = train.read_bytes()
    train.write_bytes(written + b'{"prompt": "x", "answer": "y"}\n')
    assert silo.gate.splits(digest).train.read_bytes() == written


def edited(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE findings SET usable = 1")


def broken(path: Path) -> None:
    path.write_bytes(b"no table at all" * 100)


@pytest.mark.parametrize("damage", [edited, broken])
def test_a_findings_table_that_was_damaged_trains_nothing(
    silo: SampleSilo, damage: Callable[[Path], None]
) -> None:
    silo.write_records([*sample_records(), *sample_records(3)])
    outcome = silo.check()
    damage(silo.home / GATE_DIRECTORY / str(outcome.key) / "findings.sqlite")
    with pytest.raises(DataStewardError, match="the very data that the contract was checked on"):
        silo.gate.splits(outcome.findings_digest)
    again = silo.check()
    assert again.findings_digest == outcome.findings_digest
    train = silo.gate.splits(again.findings_digest).train
    assert len(train.read_text("utf-8").splitlines()) == outcome.train_records


def test_a_damaged_baseline_is_none(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    (silo.home / BASELINE_NAME).write_bytes(b"{")
    assert silo.check().passed


@pytest.mark.long
def test_more_licences_than_a_verdict_can_hold_are_a_refusal(silo: SampleSilo) -> None:
    from license_expression import get_spdx_licensing

    known = [key for key in get_spdx_licensing().known_symbols if canonical_licence_id(key) == key]
    assert len(known) > MAX_LICENCES
    silo.write_records([sample_record(n, licence=key) for n, key in enumerate(known)])
    outcome = silo.check()
    assert {"licence.count", "licence.allowed"} <= set(failing(outcome))
    assert outcome.licences == ()


def test_few_unreadable_rows_do_not_follow_from_licence_counts(silo: SampleSilo) -> None:
    rows = [sample_record(n, licence=None if n < 20 else "MIT") for n in range(60)]
    silo.write_records([*rows, b"{", b"{", b"{"])
    outcome = silo.check()
    assert {cell.records for cell in outcome.licences} == {None}


def test_training_files_without_their_marker_are_forgotten_too(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    splits = silo.home / SPLITS_DIRECTORY
    (splits / ".splits").mkdir(parents=True)
    (splits / ".splits" / "train.jsonl").write_text("left by a kill")
    (splits / "train.jsonl").write_text("left by a kill")
    os.utime(splits / "train.jsonl", (1, 1))
    silo.check()
    assert not splits.exists()


@pytest.mark.parametrize("name", ["a#b", "50%20", "my work", "why?", "${x}, 'é'"])
def test_a_home_with_an_awkward_name_works(tmp_path: Path, name: str) -> None:
    silo = SampleSilo(tmp_path / name)
    silo.write_records(list(sample_records()))
    assert silo.gate.splits(silo.check().findings_digest).train.exists()
