"""What happens to the ranks, and what the agent says, when something goes wrong."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from data_contracts.errors import FederationOperatorError, SiloOperatorError
from data_contracts.records.round_plan import AdapterSpec, AdapterTarget
from infra.clock import SystemClock
from silo_agent.training.launch import TrainingInterruptedError, run_training
from tests.silo_agent.training.tiny_jobs import TinySilo, tiny_recipe
from tests.tiny_model import make_tiny_model

AGENT = """
import sys
from pathlib import Path
from silo_agent.training.job import TrainingJob
from silo_agent.training.launch import run_training
job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_bytes())
run_training(job, on_progress=lambda progress: print(progress.step, flush=True))
"""


def ranks_of(process: psutil.Process) -> list[psutil.Process]:
    """Training ranks below a process."""
    children = process.children(recursive=True)
    return [child for child in children if "silo_agent.training.child" in child.cmdline()]


def test_the_agent_never_imports_torch() -> None:
    check = (
        "import sys, silo_agent.training.launch, silo_agent.training.child, "
        "silo_agent.training.evaluate, silo_agent.training.packing\n"
        "print(sorted({'torch', 'deepspeed', 'transformers', 'peft'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, check=True)
    assert ran.stdout.decode().strip() == "[]"


def test_nothing_starts_after_the_deadline(silo: TinySilo) -> None:
    past = SystemClock().now() - timedelta(seconds=1)
    with pytest.raises(TrainingInterruptedError, match=r"the deadline, .* passed") as raised:
        run_training(silo.job("late"), deadline=past)
    assert raised.value.cause == "deadline"
    assert ranks_of(psutil.Process()) == []


@pytest.mark.stack
def test_a_deadline_ends_every_rank(silo: TinySilo) -> None:
    started: list[psutil.Process] = []

    class LateClock(SystemClock):
        """Past the deadline as soon as both ranks run."""

        def now(self) -> datetime:
            started[:] = started or ranks_of(psutil.Process())
            return datetime(2030 + len(started), 1, 1, tzinfo=UTC)

    with pytest.raises(TrainingInterruptedError):
        run_training(
            silo.job("too-slow"), deadline=datetime(2032, 1, 1, tzinfo=UTC), clock=LateClock()
        )
    assert len(started) == 2
    assert not any(process.is_running() for process in started)


@pytest.mark.stack
def test_a_killed_rank_ends_the_others_and_is_named(silo: TinySilo) -> None:
    killed: list[psutil.Process] = []

    def kill_one_and_go_on() -> bool:
        running = ranks_of(psutil.Process())
        if len(running) == 2 and not killed:
            killed.extend(sorted(running, key=lambda rank: rank.pid))
            killed[1].kill()
        return False

    with pytest.raises(SiloOperatorError, match=r"rank 1: .*signal SIGKILL.*more memory"):
        run_training(silo.job("killed"), should_stop=kill_one_and_go_on)
    assert len(killed) == 2
    assert not any(process.is_running() for process in killed)


@pytest.mark.stack
def test_ranks_end_when_the_agent_is_killed(silo: TinySilo) -> None:
    job = silo.job("orphans", recipe=tiny_recipe(local_steps=500))
    path = silo.root / "orphans.json"
    path.write_text(job.model_dump_json())
    agent = subprocess.Popen([sys.executable, "-c", AGENT, str(path)], stdout=subprocess.PIPE)
    assert agent.stdout is not None
    try:
        while int(agent.stdout.readline()) < 2:
            continue
        ranks = ranks_of(psutil.Process(agent.pid))
        assert len(ranks) == 2
    finally:
        os.kill(agent.pid, signal.SIGKILL)
        agent.wait()
        agent.stdout.close()
    killed_at = time.monotonic()
    gone, alive = psutil.wait_procs(ranks, timeout=10)
    assert (len(gone), alive) == (2, [])
    assert time.monotonic() - killed_at < 5


@pytest.mark.stack
def test_an_unforeseen_failure_shows_the_last_error_line_and_the_log(
    silo: TinySilo, tmp_path: Path
) -> None:
    model = make_tiny_model(tmp_path / "damaged")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    job = silo.job("damaged", model_dir=model, ranks=1)
    with pytest.raises(SiloOperatorError, match=r"last error line: .*Safetensor") as raised:
        run_training(job)
    log = job.output_dir / "log-rank-0.txt"
    assert str(log) in str(raised.value)
    assert "exit code 1" in raised.value.found
    assert "Traceback" in log.read_text()


@pytest.mark.stack
def test_a_foreseen_failure_arrives_as_what_it_is(silo: TinySilo) -> None:
    target = AdapterTarget(module="model.layers.0.self_attn.absent", in_features=32, out_features=8)
    spec = AdapterSpec(rank=4, alpha=8, seed=1, targets=(target,))
    with pytest.raises(FederationOperatorError, match="adapter spec of the plan"):
        run_training(silo.job("absent-module", adapter=spec, ranks=1))


@pytest.mark.stack
def test_cuda_without_a_gpu_is_refused_before_anything_else(silo: TinySilo) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SiloOperatorError, match=r"expected 1 GPU\(s\), one per rank; found 0"):
        run_training(silo.job("no-gpu", device="cuda", ranks=1))
