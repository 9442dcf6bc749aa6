"""Several jobs one after the other in the same ranks: only the libraries' start is shared.

`python -m tests.silo_agent.training.shared_ranks JOB.json...`, once per rank, leaves the adapter
of each job in its output directory and what was measured beside it. Starting the libraries takes
longer than training the tiny model.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from silo_agent.training.job import TrainingJob
from silo_agent.training.processes.rank_processes import RENDEZVOUS_VARIABLE, Launch, RankProcesses
from silo_agent.training.run_files import RunFiles

ROOT = Path(__file__).parents[3]
MODULE = "tests.silo_agent.training.shared_ranks"
MEASURED = "measured.json"


@dataclass(frozen=True)
class Measured:
    """Held-out losses in nats per token, the loss of the first step, and the tokens trained on."""

    starting_loss: float
    local_loss: float
    first_step_loss: float
    tokens: int


def measured(job: TrainingJob) -> Measured:
    """What a job in shared ranks left behind."""
    return Measured(**json.loads((job.output_dir / MEASURED).read_text()))


def train_in_one_rank(jobs: list[TrainingJob], root: Path) -> None:
    """Train jobs in one plain process, which is their only rank."""
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}
    variables[RENDEZVOUS_VARIABLE] = str(root / "rendezvous")
    subprocess.run(
        [sys.executable, "-m", MODULE, *_written(jobs)],
        env=os.environ | variables,
        check=True,
        capture_output=True,
    )


def train_in_shared_ranks(
    jobs: list[TrainingJob], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train jobs in ranks that torchrun starts as it starts those of a silo."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    log = root / "log-torchrun.txt"
    launch = Launch(MODULE, tuple(_written(jobs)), ranks=jobs[0].ranks, threads=1, log=log)
    with RankProcesses(launch) as processes:
        while (code := processes.exit_code()) is None:
            time.sleep(0.1)
        assert code == 0, processes.failed(code).error()


def _written(jobs: list[TrainingJob]) -> list[str]:
    """Paths of the jobs, each in its new output directory."""
    for job in jobs:
        job.output_dir.mkdir()
        RunFiles(job.output_dir).job.write_text(job.model_dump_json())
    return [str(RunFiles(job.output_dir).job) for job in jobs]


def main(paths: list[str]) -> None:
    """One rank."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import torch.distributed as dist

    from silo_agent.training.ranks.process_group import join_ranks

    jobs = [TrainingJob.model_validate_json(Path(path).read_bytes()) for path in paths]
    join_ranks(jobs[0])
    for job in jobs:
        _train(job)
    dist.barrier()
    dist.destroy_process_group()


def _train(job: TrainingJob) -> None:
    import torch.distributed as dist

    from silo_agent.training.ranks.adapter_file import write_adapter
    from silo_agent.training.ranks.engine import LoraEngine
    from silo_agent.training.ranks.lora_model import load_tokenizer
    from silo_agent.training.ranks.packing import pack_heldout, pack_training
    from silo_agent.training.ranks.record_sums import mean_loss

    size, tokenizer = job.recipe.sequences_per_step, load_tokenizer(job.model_dir)
    length, steps = job.recipe.sequence_length, job.recipe.local_steps
    packed, _ = pack_training(
        tokenizer,
        job.train_records,
        length=length,
        count=steps * size,
        seed=job.recipe.seed,
        round_number=job.round,
    )
    heldout = pack_heldout(
        tokenizer,
        job.heldout_records,
        length=length,
        limit=job.heldout_sequences,
        seed=job.layout.seed,
    )
    engine = LoraEngine(job)
    starting_loss = mean_loss(engine.heldout(heldout))
    losses = [engine.step(step, packed[step * size : (step + 1) * size]) for step in range(steps)]
    local_loss, adapter = mean_loss(engine.heldout(heldout)), engine.adapter()
    tokens = sum(len(sequence.token_ids) for sequence in packed)
    if dist.get_rank() == 0:
        write_adapter(RunFiles(job.output_dir).adapter, job.layout, adapter)
        found = Measured(starting_loss, local_loss, losses[0], tokens)
        (job.output_dir / MEASURED).write_text(json.dumps(asdict(found)))
    engine.close()


if __name__ == "__main__":
    main(sys.argv[1:])
