"""Canaries in a silo's training records: planted behind them, never among those that are held out
or counted, and told to the training job."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_contracts.dataset.findings.keyed import Keyed
from data_contracts.dataset.forms import FORMS
from silo_agent.leaks.canaries import CANDIDATES, planted_lines
from silo_agent.training.leak_part import CanaryPart, LeakPart
from tests.data_contracts.dataset.contract_samples import CONTRACT, sample_records
from tests.silo_agent.gate_samples import FINDINGS_KEY, SampleSilo

TERM = "  - property: fl.canaries\n    value: {number: 3, copies: 2}\n"
PLANTED = 6


@pytest.fixture
def silo(tmp_path: Path) -> SampleSilo:
    made = SampleSilo(tmp_path)
    made.write_records(list(sample_records()))
    return made


def test_they_come_behind_the_training_records_and_change_no_other_byte_or_count(
    silo: SampleSilo,
) -> None:
    plain = silo.check()
    files = silo.gate.splits(plain.findings_digest)
    train, units, heldout = (
        path.read_bytes() for path in (files.train, files.units, files.heldout)
    )
    assert not files.reference_canaries.exists() and files.canaries is None
    silo.write_contract(CONTRACT + TERM)
    outcome = silo.check()
    planted = silo.gate.splits(outcome.findings_digest)
    form = FORMS["instruction"]
    assert planted.canaries is not None
    lines = "".join(planted_lines(planted.canaries, form, Keyed(FINDINGS_KEY)))
    assert planted.train.read_bytes() == train + lines.encode()
    assert lines.count("\n") == PLANTED
    assert planted.heldout.read_bytes() == heldout
    counted = ("train_records", "heldout_records", "records", "train_subjects", "outcomes")
    assert [getattr(outcome, name) for name in counted] == [getattr(plain, n) for n in counted]
    found = np.fromfile(planted.units, "<u4")
    subjects = outcome.train_subjects
    assert subjects is not None
    assert found.tobytes()[: len(units)] == units
    assert found[-PLANTED:].tolist() == [subjects, subjects + 1, subjects + 2] * 2
    reference = planted.reference_canaries
    assert reference.stat().st_mode & 0o777 == 0o600
    assert len(reference.read_text().splitlines()) == 3 + CANDIDATES


def test_they_are_written_once_and_go_with_their_term(silo: SampleSilo) -> None:
    silo.write_contract(CONTRACT + TERM)
    found = silo.check().findings_digest
    files = silo.gate.splits(found)
    written = files.train.stat().st_mtime_ns
    silo.gate.splits(found)
    assert files.train.stat().st_mtime_ns == written
    train, reference = files.train.read_bytes(), files.reference_canaries.read_bytes()
    files.reference_canaries.unlink()
    assert silo.gate.splits(found).reference_canaries.read_bytes() == reference
    silo.write_contract(CONTRACT + TERM.replace("copies: 2", "copies: 3"))
    more = silo.gate.splits(silo.check().findings_digest)
    assert len(more.train.read_bytes().splitlines()) == len(train.splitlines()) + 3
    silo.write_contract(CONTRACT)
    none = silo.gate.splits(silo.check().findings_digest)
    assert not none.reference_canaries.exists()
    assert len(none.train.read_bytes().splitlines()) == len(train.splitlines()) - PLANTED


def test_a_job_is_the_same_as_before_where_no_canaries_are_planted(tmp_path: Path) -> None:
    assert "canaries" not in json.loads(LeakPart().model_dump_json())
    part = CanaryPart(records=tmp_path / "canaries.jsonl", planted=3, copies=2)
    assert LeakPart(canaries=part).reference_canaries == tmp_path / "canaries.jsonl"
    assert LeakPart().reference_canaries is None
