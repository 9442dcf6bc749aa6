"""Several jobs one after the other in one process, which is their only rank.

`python -m tests.silo_agent.training.one_rank JOB.json...` leaves the adapter of each job in its
output directory. Starting the libraries takes longer than training the tiny model.
"""

import os
import sys
from pathlib import Path

import torch.distributed as dist

from silo_agent.training.adapter_file import write_adapter
from silo_agent.training.engine import LoraEngine
from silo_agent.training.job import TrainingJob
from silo_agent.training.lora_model import load_tokenizer
from silo_agent.training.packing import pack_training
from silo_agent.training.process_group import join_ranks
from silo_agent.training.rank_processes import RENDEZVOUS_VARIABLE
from silo_agent.training.run_files import RunFiles

RANK_VARIABLES = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu"}


def environment(rendezvous: Path) -> dict[str, str]:
    """Variables of such a process."""
    return {**os.environ, **RANK_VARIABLES, RENDEZVOUS_VARIABLE: str(rendezvous)}


def train(job: TrainingJob) -> None:
    """Train one job's adapter and write it."""
    size = job.recipe.sequences_per_step
    packed, _ = pack_training(
        load_tokenizer(job.model_dir),
        job.train_records,
        length=job.recipe.sequence_length,
        count=job.recipe.local_steps * size,
        seed=job.recipe.seed,
        round_number=job.round,
    )
    engine = LoraEngine(job)
    for step in range(job.recipe.local_steps):
        engine.step(step, packed[step * size : (step + 1) * size])
    job.output_dir.mkdir(exist_ok=True)
    write_adapter(RunFiles(job.output_dir).adapter, job.adapter, engine.adapter())
    engine.close()


if __name__ == "__main__":
    jobs = [TrainingJob.model_validate_json(Path(path).read_bytes()) for path in sys.argv[1:]]
    join_ranks(jobs[0])
    for one in jobs:
        train(one)
    dist.destroy_process_group()
