"""Several jobs one after the other in the same ranks: only the libraries' start is shared.

`python -m tests.silo_agent.training.shared_ranks JOB.json...`, once per rank, does each job as a
rank of its own launch does and leaves its result, or what it reports, in its output directory.
Starting the libraries takes longer than training the tiny model.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from data_contracts.errors import ConsortiaError
from silo_agent.training.job import TrainingJob, TrainingResult
from silo_agent.training.processes.launch import run_training
from silo_agent.training.processes.rank_log import redirect_output
from silo_agent.training.processes.rank_processes import RENDEZVOUS_VARIABLE, Launch, rank_processes
from silo_agent.training.run_files import RunFiles, exit_code_of

ROOT = Path(__file__).parents[3]
MODULE = "tests.silo_agent.training.shared_ranks"


def finished(job: TrainingJob) -> TrainingResult:
    """The result of a job that was done before; no process may start."""
    return run_training(job, should_stop=lambda: True)


def train_in_one_rank(jobs: Sequence[TrainingJob], root: Path) -> None:
    """Do jobs in one plain process, which is their only rank."""
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}
    variables[RENDEZVOUS_VARIABLE] = str(root / "rendezvous")
    subprocess.run(
        [sys.executable, "-m", MODULE, *_written(jobs)],
        env=os.environ | variables,
        check=True,
        capture_output=True,
    )


def train_in_shared_ranks(jobs: Sequence[TrainingJob], root: Path) -> ConsortiaError | None:
    """Do jobs in ranks that torchrun starts as it starts those of a silo; what went wrong."""
    log = root / "log-torchrun.txt"
    launch = Launch(MODULE, tuple(_written(jobs)), ranks=jobs[0].ranks, threads=1, log=log)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        with rank_processes(launch) as processes:
            while (code := processes.exit_code()) is None:
                time.sleep(0.1)
            return processes.failed(code).error() if code else None


def _written(jobs: Sequence[TrainingJob]) -> list[str]:
    """Paths of the jobs, each in its output directory."""
    for job in jobs:
        job.output_dir.mkdir(exist_ok=True)
        RunFiles(job.output_dir).job.write_text(job.model_dump_json())
    return [str(RunFiles(job.output_dir).job) for job in jobs]


def main(paths: list[str]) -> None:
    """One rank."""
    redirect_output()
    os.umask(0o077)
    os.environ["DS_ACCELERATOR"] = "cpu"
    import torch.distributed as dist

    from silo_agent.training.ranks.local_training import do_job
    from silo_agent.training.ranks.process_group import join_ranks

    jobs = [TrainingJob.model_validate_json(Path(path).read_bytes()) for path in paths]
    join_ranks(jobs[0])
    for job in jobs:
        exit_code_of(partial(do_job, job, job.fingerprint()), RunFiles(job.output_dir).failure)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
