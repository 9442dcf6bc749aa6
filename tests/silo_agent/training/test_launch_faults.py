"""What happens to the ranks, and what the agent says, when something goes wrong."""

import json
import os
import signal
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from data_contracts.errors import ConsortiaError, FederationOperatorError, SiloOperatorError
from infra.clock import SystemClock
from infra.processes.exit_codes import ORPHANED
from infra.processes.parent_pipe import PIPE_VARIABLE
from silo_agent.training.processes.failed_process import FailedProcess, first_failed
from silo_agent.training.processes.launch import TrainingInterruptedError, run_training
from silo_agent.training.processes.machine_launch import LOG_NAME
from silo_agent.training.processes.rank_log import rank_log
from silo_agent.training.processes.torchrun import (
    TORCHRUN_VARIABLES,
    closing_message,
    failed_ranks,
    torchrun_command,
)
from silo_agent.training.run_files import RunFiles, read_failure
from tests.silo_agent.training.tiny_jobs import Jobs, TinySilo, job_processes

pytestmark = pytest.mark.long


def ranks_of(process: psutil.Process) -> list[psutil.Process]:
    """Training ranks below a process, in the order in which they were started."""
    return sorted(job_processes(process)[1:], key=lambda rank: rank.pid)


def still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that execute; one that only waits to be collected by its parent does not."""
    running = [process for process in processes if process.is_running()]
    return [process for process in running if process.status() != psutil.STATUS_ZOMBIE]


def test_the_agent_never_imports_torch() -> None:
    check = (
        "import sys, silo_agent.training.processes.launch, silo_agent.training.ranks.child, "
        "silo_agent.training.ranks.forked, "
        "silo_agent.training.ranks.evaluate, silo_agent.training.ranks.packing\n"
        "print(sorted({'torch', 'deepspeed', 'transformers', 'peft'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, check=True)
    assert ran.stdout.decode().strip() == "[]"


def test_nothing_starts_after_the_deadline(silo: TinySilo) -> None:
    past = SystemClock().now() - timedelta(seconds=1)
    with pytest.raises(TrainingInterruptedError, match=r"the deadline, .* passed") as raised:
        run_training(silo.job("late"), deadline=past)
    assert raised.value.cause == "deadline"
    assert job_processes(psutil.Process()) == []


@pytest.mark.stack
def test_a_deadline_ends_every_rank(silo: TinySilo) -> None:
    started: list[psutil.Process] = []

    class LateClock(SystemClock):
        """Past the deadline as soon as both ranks run."""

        def now(self) -> datetime:
            running = job_processes(psutil.Process())
            started[:] = running if len(running) == 3 else started
            return datetime(2030 + len(started), 1, 1, tzinfo=UTC)

    with pytest.raises(TrainingInterruptedError, match=r"the deadline, .* passed"):
        run_training(
            silo.job("too-slow"), deadline=datetime(2033, 1, 1, tzinfo=UTC), clock=LateClock()
        )
    assert len(started) == 3
    assert still_running(started) == []


@pytest.mark.stack
def test_a_stop_while_the_launcher_starts_leaves_nothing(silo: TinySilo) -> None:
    started: list[psutil.Process] = []

    def stop_at_once() -> bool:
        started.extend(job_processes(psutil.Process()))
        return bool(started)

    with pytest.raises(TrainingInterruptedError, match="kill switch") as raised:
        run_training(silo.job("stopped"), should_stop=stop_at_once)
    assert raised.value.cause == "stopped"
    assert len(started) == 1 and still_running(started) == []


@pytest.mark.stack
def test_a_killed_rank_ends_the_others_and_is_named(silo: TinySilo) -> None:
    killed: list[psutil.Process] = []
    job = silo.job("killed")

    def kill_one_and_go_on() -> bool:
        running = ranks_of(psutil.Process())
        log = rank_log(job.output_dir, 1)
        if len(running) == 2 and log.exists() and not killed:
            killed.extend(running)
            killed[1].kill()
        return False

    with pytest.raises(SiloOperatorError, match=r"rank 1: .*signal SIGKILL.*more memory") as raised:
        run_training(job, should_stop=kill_one_and_go_on)
    assert str(rank_log(job.output_dir, 1)) in raised.value.action
    assert len(killed) == 2
    assert still_running(killed) == []


@pytest.mark.stack
def test_a_killed_launcher_takes_its_ranks_along(silo: TinySilo) -> None:
    seen: list[psutil.Process] = []

    def kill_launcher_and_go_on() -> bool:
        running = job_processes(psutil.Process())
        # Once: killed ones may still be there when it is looked again.
        if len(running) == 3 and not seen:
            seen.extend(running)
            running[0].kill()
        return False

    with pytest.raises(SiloOperatorError, match=r"launcher: .*signal SIGKILL"):
        run_training(silo.job("no-launcher"), should_stop=kill_launcher_and_go_on)
    assert len(seen) == 3
    # Nobody is left who could wait for them: they end by themselves, when they notice.
    psutil.wait_procs(seen, timeout=10)
    assert still_running(seen) == []


def test_a_rank_that_starts_after_the_agent_died_ends(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    wait = (
        "import time; from infra.processes.parent_pipe import end_with_parent; "
        "end_with_parent(); time.sleep(20)"
    )
    environment = os.environ | {PIPE_VARIABLE: str(tmp_path / "pipe")}
    ran = subprocess.run([sys.executable, "-c", wait], check=False, env=environment)
    assert ran.returncode == ORPHANED


WAITING_RANKS = """
import json, multiprocessing, time
from silo_agent.training.ranks.forked import exit_codes
fork = multiprocessing.get_context("fork")
ranks = [fork.Process(target=time.sleep, args=(seconds,)) for seconds in (0, 60, 60)]
for rank in ranks:
    rank.start()
ranks[0].join()
ranks[2].kill()
print(json.dumps(exit_codes(ranks)))
"""


def test_the_first_rank_that_fails_ends_the_others_and_is_told_from_them(tmp_path: Path) -> None:
    """Real processes, which only wait: one until it is killed, and one that has ended well.

    Forked where nothing else runs, as ranks are.
    """
    ran = subprocess.run([sys.executable, "-c", WAITING_RANKS], capture_output=True, check=True)
    codes = json.loads(ran.stdout)
    assert codes == [0, -signal.SIGTERM, -signal.SIGKILL]
    log = tmp_path / LOG_NAME
    log.write_text(f"a warning\n{closing_message(codes)}\n")
    assert failed_ranks(log) == {1: -signal.SIGTERM, 2: -signal.SIGKILL}
    assert first_failed(FailedProcess("launcher", 1, log)).name == "rank 2"


def test_a_library_that_cannot_be_imported_is_named(
    silo: TinySilo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libgomp.so.1: no such file')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[3]}")
    job = silo.job("no-library")
    with pytest.raises(SiloOperatorError) as raised:
        run_training(job)
    found = (
        "launcher: expected exit code 0; found exit code 1; last error line: ImportError: libgomp"
    )
    assert found in str(raised.value)
    assert str(job.output_dir / LOG_NAME) in raised.value.action


@pytest.mark.stack
def test_torchrun_itself_says_which_rank_was_killed(tmp_path: Path) -> None:
    """It starts ranks on GPUs; what they run needs none."""
    killed = (
        "import os, time; os.environ['RANK'] == '1' and os.kill(os.getpid(), 9); time.sleep(60)"
    )
    command = torchrun_command(2, [sys.executable, "-c", killed], tmp_path)
    log = tmp_path / LOG_NAME
    with log.open("wb") as output:
        code = subprocess.run(
            command, env=os.environ | TORCHRUN_VARIABLES, stdout=output, stderr=output
        ).returncode
    assert code == 1
    assert failed_ranks(log)[1] == -signal.SIGKILL
    assert first_failed(FailedProcess("torchrun", code, log)).name == "rank 1"


def test_a_failure_that_torchrun_cannot_attribute_is_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log-torchrun.txt"
    log.write_text("Traceback (most recent call last):\nOSError: no space\n")
    error = first_failed(FailedProcess("torchrun", 1, log)).error()
    assert str(error).startswith("training process, torchrun: expected exit code 0; found exit ")
    assert "last error line: OSError: no space" in error.found


def test_a_rank_without_a_log_of_its_own_is_read_in_that_of_torchrun(tmp_path: Path) -> None:
    log = tmp_path / "log-torchrun.txt"
    log.write_text(
        "ModuleNotFoundError: No module named 'pydantic'\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
        "Root Cause (first observed failure):\n[0]:\n  time      : now\n"
        "  rank      : 1 (local_rank: 1)\n  exitcode  : 1 (pid: 11)\n"
    )
    failed = first_failed(FailedProcess("torchrun", 1, log))
    assert failed == FailedProcess("rank 1", 1, log)
    assert "ModuleNotFoundError" in failed.error().found


@pytest.mark.stack
def test_a_foreseen_failure_arrives_as_what_it_is(one_rank: Jobs) -> None:
    error = read_failure(RunFiles(one_rank["absent-module"].output_dir).failure)
    assert isinstance(error, FederationOperatorError)
    assert "adapter layout of the plan" in str(error)


# Where no other file has asked for them, three launches begin here.
@pytest.mark.timeout(900)
@pytest.mark.stack
def test_an_unforeseen_failure_shows_the_last_error_line_and_the_log(
    silo: TinySilo, unforeseen: ConsortiaError
) -> None:
    assert isinstance(unforeseen, SiloOperatorError)
    assert "exit code 1; last error line: " in unforeseen.found
    assert "Safetensor" in unforeseen.found
    damaged = silo.root / "damaged"
    logs = [*(damaged / f"log-rank-{rank}.txt" for rank in (0, 1)), silo.root / LOG_NAME]
    (log,) = [log for log in logs if str(log) in str(unforeseen)]
    assert log.name in {"log-rank-0.txt", "log-rank-1.txt"}
    assert "Traceback" in log.read_text()
    assert [stat.S_IMODE(path.stat().st_mode) for path in logs] == [0o600] * 3


@pytest.mark.stack
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_refused_before_anything_else(silo: TinySilo) -> None:
    with pytest.raises(ConsortiaError) as raised:
        run_training(silo.job("no-gpu", device="cuda", precision="bfloat16", ranks=1))
    assert isinstance(raised.value, SiloOperatorError)
    assert "expected 1 GPU(s), one per rank; found 0" in str(raised.value)
