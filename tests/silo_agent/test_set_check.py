"""`silo-agent compare`: a synthetic set beside a silo's own records, from its contract to the exit
code."""

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_contracts.dataset.novelty.set_findings import NoveltyLimits
from data_contracts.errors import DataStewardError, SiloOperatorError
from silo_agent.cli import app
from silo_agent.gate.set_check import check_set, kept_rows, own_records, texts_of_set
from tests.data_contracts.dataset.contract_samples import replaced, sample_record
from tests.data_contracts.dataset.novelty.made_notes import edited, notes
from tests.silo_agent.gate_samples import SampleSilo

LIMITS = NoveltyLimits()
OWN = notes(700, 1)


def write_set(path: Path, texts: list[str]) -> Path:
    """Records with an answer each, as a file of them has it."""
    lines = (json.dumps({"prompt": "What is noted?", "answer": text}) for text in texts)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> SampleSilo:
    silo = SampleSilo(
        tmp_path_factory.mktemp("silo"), replaced(("max_value: 500", "max_value: 5000"))
    )
    silo.write_records(
        [
            sample_record(number, prompt="What is noted?", answer=text)
            for number, text in enumerate(OWN)
        ]
    )
    silo.write_config()
    return silo


def test_the_records_that_training_reads_are_compared_with_and_all_of_them(
    silo: SampleSilo,
) -> None:
    outcome = silo.check()
    own = own_records(silo.gate.splits(outcome.findings_digest))
    assert len(own.train) == len(own.train_units) == outcome.train_records
    assert len(own.heldout) == outcome.heldout_records
    answers = {text.split("\n")[1] for text in (*own.train, *own.heldout)}
    assert answers == set(OWN)


def test_a_set_that_was_written_anew_is_different_enough(silo: SampleSilo, tmp_path: Path) -> None:
    findings = check_set(silo.gate, write_set(tmp_path / "set.jsonl", notes(150, 2)), LIMITS)
    assert findings.records == 150
    # The question is the same in all of them.
    assert findings.caught() == frozenset()
    assert set(findings.broken(LIMITS)) <= {"synthetic.too_few"}


def test_what_is_kept_of_a_set_with_copies_breaks_no_rule_about_records(
    silo: SampleSilo, tmp_path: Path
) -> None:
    copies = [OWN[3], edited(OWN[9], random.Random(1), 12)]
    path = write_set(tmp_path / "set.jsonl", [*notes(150, 2), *copies])
    findings = check_set(silo.gate, path, LIMITS)
    assert findings.caught() == {151, 152}
    kept = tmp_path / "kept.jsonl"
    kept.write_bytes(b"".join(kept_rows(path, findings)))
    assert kept.read_text().splitlines() == path.read_text().splitlines()[:150]
    assert check_set(silo.gate, kept, LIMITS).caught() == frozenset()


def test_a_silo_whose_data_break_their_contract_compares_with_nothing(tmp_path: Path) -> None:
    silo = SampleSilo(tmp_path / "home")
    silo.write_records([sample_record(number, licence="GPL-3.0-only") for number in range(40)])
    path = write_set(tmp_path / "set.jsonl", notes(3, 2))
    with pytest.raises(SiloOperatorError, match="data contract"):
        check_set(silo.gate, path, LIMITS)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"not JSON\n", "something else in record 1"),
        (b'{"text": "a"}\n{"prompt": "a", "answer": "b"}\n', "instruction in record 2"),
    ],
    ids=["empty", "no JSON", "two forms"],
)
def test_a_file_that_is_no_set_is_named_with_what_is_wrong(
    content: bytes, found: str, tmp_path: Path
) -> None:
    (tmp_path / "set.jsonl").write_bytes(content)
    with pytest.raises(DataStewardError, match=found):
        texts_of_set(tmp_path / "set.jsonl")


def test_the_command_shows_rules_names_records_and_ends_with_what_to_do(
    silo: SampleSilo, tmp_path: Path
) -> None:
    path = write_set(tmp_path / "set.jsonl", [*notes(150, 2), OWN[5]])
    done = CliRunner().invoke(
        app,
        ["compare", str(path), "--home", str(silo.home), "--kept", str(tmp_path / "to" / "kept")],
    )
    assert isinstance(done.exception, DataStewardError)
    assert "synthetic.span: records 151" in done.output
    assert "150 records are in" in done.output
    assert len((tmp_path / "to" / "kept").read_text().splitlines()) == 150
    assert (tmp_path / "to" / "kept").stat().st_mode & 0o077 == 0
    assert "synthetic.near_copy" in done.exception.found
    assert "--kept" in done.exception.action
    # Nothing of a text is told.
    assert not any(sentence in done.output for sentence in OWN[5].split(". "))
