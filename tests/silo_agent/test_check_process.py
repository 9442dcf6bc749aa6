"""Records are looked at in a process of their own, which may die without the agent."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from data_contracts.errors import DataStewardError, SiloOperatorError
from silo_agent.config import AgentSection
from silo_agent.gate.check_child import ORPHANED_EXIT_CODE, REPORT_EVERY
from silo_agent.gate.check_process import check_in_child
from silo_agent.gate.contract_gate import GATE_DIRECTORY
from silo_agent.restarts import CheckDiedError
from tests.data_contracts.dataset.contract_samples import sample_record, sample_records
from tests.silo_agent.gate_samples import SampleSilo, failing


@pytest.fixture
def silo(tmp_path: Path) -> SampleSilo:
    silo = SampleSilo(tmp_path)
    silo.write_config()
    return silo


def test_the_child_finds_what_the_gate_finds_and_it_is_kept(silo: SampleSilo) -> None:
    silo.write_records([*sample_records(), b"broken"])
    gate = silo.gate_in_child
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
    assert failing(silo.gate_in_child.check(seen.append)) == []
    assert seen == [REPORT_EVERY, 2 * REPORT_EVERY]


def test_a_child_that_says_what_is_wrong_is_a_check_that_could_not_be_made(
    silo: SampleSilo,
) -> None:
    silo.write_records(list(sample_records()))
    (silo.home / "silo-agent.toml").write_text("not a configuration")
    with pytest.raises(DataStewardError, match="ended with exit code 3") as error:
        check_in_child(silo.home, lambda records: None)
    assert "silo-agent check" in str(error.value)


@contextmanager
def each_child(act: Callable[[psutil.Process], None], times: int) -> Iterator[list[int]]:
    """Do `act` to the first `times` processes that check data; gives all their ids."""
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            for child in psutil.Process().children():
                with suppress(psutil.Error):
                    if child.pid not in seen and "silo_agent.gate.check_child" in child.cmdline():
                        seen.append(child.pid)
                        if len(seen) <= times:
                            act(child)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def starve(child: psutil.Process) -> None:
    """No more memory than it has by now."""
    child.rlimit(psutil.RLIMIT_AS, (2**20, 2**20))


def crash(child: psutil.Process) -> None:
    child.send_signal(signal.SIGSEGV)


def test_a_child_that_was_killed_once_is_started_again(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    with each_child(psutil.Process.kill, 1) as seen:
        assert silo.gate_in_child.check().passed
    assert len(seen) == 2


@pytest.mark.parametrize("die", [psutil.Process.kill, crash, starve])
def test_a_child_that_always_dies_is_no_word_about_the_data(
    silo: SampleSilo, die: Callable[[psutil.Process], None]
) -> None:
    silo.write_records(list(sample_records()))
    silo.config = silo.config.model_copy(update={"agent": AgentSection(max_restarts=2)})
    gate = silo.gate_in_child
    with each_child(die, 3) as seen, pytest.raises(CheckDiedError, match=r"more memory") as raised:
        gate.check()
    assert len(seen) == 3
    assert ("SIG" in raised.value.found) == (die is not starve)
    assert list((silo.home / GATE_DIRECTORY).rglob("outcome.json")) == []


def test_what_needs_no_look_needs_no_child(silo: SampleSilo) -> None:
    (silo.home / "silo-agent.toml").unlink()
    outcome = silo.gate_in_child.check()
    assert failing(outcome) == ["data.available"]


def test_the_kill_switch_ends_the_child(silo: SampleSilo) -> None:
    silo.write_records(list(sample_records()))
    began = time.monotonic()
    with pytest.raises(SiloOperatorError, match="kill switch to be off"):
        check_in_child(silo.home, lambda records: None, is_stopped=lambda: True)
    assert time.monotonic() - began < 5


def test_the_child_ends_with_its_agent(silo: SampleSilo) -> None:
    """Its end of the pipe is closed by the kernel, however the agent ended."""
    command = [sys.executable, "-m", "silo_agent.gate.check_child", str(silo.home)]
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
