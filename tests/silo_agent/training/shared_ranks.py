"""Several jobs one after the other in the same ranks: the libraries are started once for all.

Starting them takes longer than training the tiny model.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from data_contracts.errors import ConsortiaError
from infra.processes.exit_codes import FAULT
from silo_agent.training.job import TrainingJob
from silo_agent.training.orders import Order, Orders
from silo_agent.training.processes.launch import run_training
from silo_agent.training.processes.machine_launch import MODULE
from silo_agent.training.processes.rank_processes import RENDEZVOUS_VARIABLE
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.results import TrainingResult

ROOT = Path(__file__).parents[3]
KEEP_SECONDS = 600


def finished(job: TrainingJob) -> TrainingResult:
    """The result of a job that was done before; no process may start."""
    return run_training(job, should_stop=lambda: True)


def told(loss: float | None) -> float:
    """A loss of steps, which every job has that is not private."""
    assert loss is not None
    return loss


def train_in_one_rank(jobs: Sequence[TrainingJob], root: Path) -> None:
    """Do jobs in one plain process, which is their only rank; of the last a fault is expected."""
    directory = root / "orders"
    directory.mkdir()
    orders = Orders(directory)
    for number, job in enumerate(jobs, start=1):
        job.output_dir.mkdir(exist_ok=True)
        path = job.output_dir / f"job-{number}.json"
        path.write_text(job.model_dump_json())
        order = Order(
            kind="training",
            job=path,
            fingerprint=job.fingerprint(),
            device="cpu",
            threads=1,
            is_last=job is jobs[-1],
        )
        orders.give(number, order)
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "PYTHONPATH": str(ROOT)}
    variables[RENDEZVOUS_VARIABLE] = str(root / "rendezvous #1?")
    ran = subprocess.run(
        [sys.executable, "-m", MODULE, str(directory)],
        env=os.environ | variables,
        check=False,
        capture_output=True,
    )
    assert ran.returncode == FAULT, ran.stderr.decode()[-2000:]


def train_in_shared_ranks(
    jobs: Sequence[TrainingJob], ranks: ResidentRanks
) -> ConsortiaError | None:
    """Do jobs as an agent does that keeps its ranks; what the first that fails raises."""
    try:
        for job in jobs:
            run_training(job, ranks=ranks)
    except ConsortiaError as error:
        return error
    return None
