"""Records are looked at in a process of their own, which may die without the agent."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from data_contracts.errors import DataStewardError, SiloOperatorError
from infra.processes.exit_codes import ORPHANED
from infra.processes.parent_pipe import PIPE_VARIABLE
from silo_agent.config import AgentSection
from silo_agent.gate.check_child import REPORT_EVERY
from silo_agent.gate.check_process import check_in_child
from silo_agent.gate.contract_gate import GATE_DIRECTORY
from silo_agent.gate.outcome import GateOutcome
from silo_agent.restarts import CheckDiedError
from tests.data_contracts.dataset.contract_samples import sample_record, sample_records
from tests.silo_agent.gate_samples import SampleSilo, failing

pytestmark = pytest.mark.long


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
    # A Python that lacks memory before it has begun aborts by itself.
    is_killed = "SIG" in raised.value.found and "SIGABRT" not in raised.value.found
    assert is_killed == (die is not starve)
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


@dataclass(frozen=True)
class LargeCheck:
    """A check whose child was orphaned, then one whose child was killed once and began again."""

    orphan: int
    orphaned_code: int
    left_by_orphan: list[str]
    outcome: GateOutcome
    progress: list[int]
    children: list[int]
    left: list[str]


def orphaned_child(silo: SampleSilo) -> subprocess.Popen[bytes]:
    """One that its agent leaves after the first progress."""
    command = [sys.executable, "-m", "silo_agent.gate.check_child", str(silo.home)]
    pipe = silo.home / "agent-alive"
    os.mkfifo(pipe, 0o600)
    descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    environment = os.environ | {PIPE_VARIABLE: str(pipe)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        os.close(descriptor)
        child.wait(timeout=10)
    return child


def tables(silo: SampleSilo) -> list[str]:
    return [path.name for path in (silo.home / GATE_DIRECTORY).rglob("*.sqlite")]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> LargeCheck:
    """Of more records than two reports of progress; a child's start takes seconds."""
    silo = SampleSilo(tmp_path_factory.mktemp("large"))
    silo.write_config()
    count = 2 * REPORT_EVERY + 500
    silo.write_records([sample_record(n, prompt="Which?", answer=words(n)) for n in range(count)])
    orphan = orphaned_child(silo)
    left_by_orphan, progress = tables(silo), list[int]()
    with each_child(psutil.Process.kill, 1) as seen:
        outcome = silo.gate_in_child.check(progress.append)
    return LargeCheck(
        orphan.pid, orphan.returncode, left_by_orphan, outcome, progress, seen, tables(silo)
    )


def test_progress_comes_while_the_child_works(large: LargeCheck) -> None:
    assert failing(large.outcome) == []
    assert large.progress == [REPORT_EVERY, 2 * REPORT_EVERY]


def test_a_child_that_was_killed_once_is_started_again(large: LargeCheck) -> None:
    assert large.outcome.passed
    assert len(large.children) == 2


def test_the_child_ends_with_its_agent(large: LargeCheck) -> None:
    """Its end of the pipe is closed by the kernel, however the agent ended."""
    assert large.orphaned_code == ORPHANED
    assert large.left_by_orphan == [f"{large.orphan}.findings.sqlite"]
    assert large.outcome.passed
    assert large.left == ["findings.sqlite"]
