"""An agent that is killed in the middle of training, and one that goes on from what it left."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from infra.clock import SystemClock
from silo_agent.training.job import TrainingJob
from silo_agent.training.processes.launch import run_training
from silo_agent.training.results import Progress, TrainingResult
from tests.silo_agent.training.tiny_jobs import TinySilo, job_processes

DEADLINE = datetime(2030, 1, 1, tzinfo=UTC)
CREDENTIAL = "CONSORTIA_CREDENTIAL"
AGENT = """
import os, signal, sys
from pathlib import Path
import psutil
from silo_agent.training.job import TrainingJob
from silo_agent.training.processes.launch import run_training

def die_at_step_3(progress):
    if progress.step >= 3:
        processes = psutil.Process().children(recursive=True)
        print(*(process.pid for process in processes), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

job = TrainingJob.model_validate_json(Path(sys.argv[1]).read_bytes())
run_training(job, on_progress=die_at_step_3)
"""


class BaselineClock(SystemClock):
    """Passes the deadline as soon as the silo-only baseline begins."""

    def __init__(self) -> None:
        self.in_baseline = False

    def note(self, progress: Progress) -> None:
        """See whether the baseline has begun."""
        self.in_baseline = self.in_baseline or progress.phase.startswith("silo-only")

    def now(self) -> datetime:
        """Just past the deadline, or long before it."""
        return DEADLINE + timedelta(days=1 if self.in_baseline else -1)


@dataclass
class Watched:
    """What could be seen of a job's processes while it ran, by name of the phase."""

    commands: dict[str, list[list[str]]] = field(default_factory=dict)
    environments: list[dict[str, str]] = field(default_factory=list)
    listening: dict[str, list[str]] = field(default_factory=dict)
    compiled: set[str] = field(default_factory=set)

    def note(self, progress: Progress) -> None:
        """Look at every process of the job, once a phase: looking takes as long as many steps.

        Of one that is just ending nothing is noted.
        """
        if progress.phase in self.commands:
            return
        for process in job_processes(psutil.Process()):
            try:
                connections = process.net_connections(kind="inet")
                command, environment = process.cmdline(), process.environ()
            except psutil.Error:
                continue
            self.commands.setdefault(progress.phase, []).append(command)
            self.environments.append(environment)
            addresses = [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
            self.listening.setdefault(progress.phase, []).extend(addresses)
            extensions = Path(environment["TORCH_EXTENSIONS_DIR"])
            self.compiled.update(path.name for path in extensions.rglob("*"))


@dataclass(frozen=True)
class Resumed:
    """A result without its baseline, when its adapter was written, what was seen meanwhile, and
    the orphans of the killed agent that had ended within half a minute, before it began."""

    result: TrainingResult
    written_at_ns: int
    watched: Watched
    gone: list[int]


def orphans_of_a_killed_agent(silo: TinySilo, job: TrainingJob) -> list[int]:
    """Process ids that an agent left when it was killed at step 3 of `job`."""
    path = silo.root / "orphans.json"
    path.write_text(job.model_dump_json())
    # A killed agent cannot remove its temporary directory.
    environment = {**os.environ, "TMPDIR": str(silo.root)}
    agent = subprocess.run(
        [sys.executable, "-c", AGENT, str(path)], stdout=subprocess.PIPE, env=environment
    )
    return [int(pid) for pid in agent.stdout.split()]


def resume(job: TrainingJob, orphans: list[int]) -> Resumed:
    """Wait for the orphans, then go on with their job, as an agent that has a credential."""
    processes = [psutil.Process(pid) for pid in orphans if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(processes, timeout=30)
    gone = [pid for pid in orphans if pid not in {process.pid for process in alive}]
    clock, watched = BaselineClock(), Watched()

    def note(progress: Progress) -> None:
        clock.note(progress)
        watched.note(progress)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv(CREDENTIAL, "of the agent alone")
        result = run_training(job, on_progress=note, deadline=DEADLINE, clock=clock)
    return Resumed(result, result.adapter.stat().st_mtime_ns, watched, gone)
