"""Records are looked at in a process of their own, which may die without the agent."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_contracts.errors import DataStewardError
from silo_agent.check_process import REPORT_EVERY, check_in_child
from tests.data_contracts.dataset.contract_samples import sample_record, sample_records
from tests.silo_agent.gate_samples import SampleSilo, failing


@pytest.fixture
def silo(tmp_path: Path) -> SampleSilo:
    silo = SampleSilo(tmp_path)
    silo.write_config()
    return silo


def test_the_child_finds_what_the_gate_finds_and_it_is_kept(silo: SampleSilo) -> None:
    silo.write_records([*sample_records(), b"broken"])
    gate = replace(silo.gate, in_child=True)
    outcome = gate.check()
    assert failing(outcome) == ["records.readable"]
    assert silo.check() == outcome
    assert gate.check() == outcome


def words(number: int) -> str:
    """A different text for every number, in letters only."""
    return " ".join("abcdefghij"[int(digit)] * 3 for digit in f"{number:05}")


def test_progress_comes_while_the_child_works(silo: SampleSilo) -> None:
    count = 2 * REPORT_EVERY + 500
    silo.write_records([sample_record(n, prompt="Which?", answer=words(n)) for n in range(count)])
    seen: list[int] = []
    assert failing(replace(silo.gate, in_child=True).check(seen.append)) == []
    assert seen == [REPORT_EVERY, 2 * REPORT_EVERY]


def test_a_child_that_dies_is_a_check_that_could_not_be_made(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    (silo.home / "silo-agent.toml").write_text("not a configuration")
    with pytest.raises(DataStewardError, match="ended with code 1") as error:
        check_in_child(silo.home, lambda records: None)
    assert "silo-agent check" in str(error.value)


def test_what_needs_no_look_needs_no_child(silo: SampleSilo) -> None:
    (silo.home / "silo-agent.toml").unlink()
    outcome = replace(silo.gate, in_child=True).check()
    assert failing(outcome) == ["data.available"]
