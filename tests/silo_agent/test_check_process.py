"""Records are looked at in a process of their own, which may die without the agent."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from data_contracts.errors import DataStewardError, SiloOperatorError
from silo_agent.check_process import ORPHANED_EXIT_CODE, REPORT_EVERY, check_in_child
from silo_agent.contract_gate import GATE_DIRECTORY
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
    assert gate.check() == outcome, "it is kept"
    here = silo.check()
    assert (here.outcomes, here.findings_digest) == (outcome.outcomes, outcome.findings_digest)


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


def test_the_kill_switch_ends_the_child(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    began = time.monotonic()
    with pytest.raises(SiloOperatorError, match="kill switch to be off"):
        check_in_child(silo.home, lambda records: None, is_stopped=lambda: True)
    assert time.monotonic() - began < 5


def test_the_child_ends_with_its_agent(silo: SampleSilo) -> None:
    """Its end of the pipe is closed by the kernel, however the agent ended."""
    command = [sys.executable, "-m", "silo_agent.check_process", str(silo.home)]
    silo.write_records(
        [sample_record(n, prompt="Which?", answer=words(n)) for n in range(REPORT_EVERY + 4_000)]
    )
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        child.stdout.readline()
        child.stdin.close()
        assert child.wait(timeout=10) == ORPHANED_EXIT_CODE
    left = [path.name for path in (silo.home / GATE_DIRECTORY).rglob("*.sqlite")]
    assert left == [f"{child.pid}.findings.sqlite"]
    assert silo.check().passed
    assert [path.name for path in (silo.home / GATE_DIRECTORY).rglob("*.sqlite")] == [
        "findings.sqlite"
    ]
