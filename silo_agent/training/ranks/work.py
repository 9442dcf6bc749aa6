"""The jobs of one rank that has met the others, with what it keeps between them."""

import time

import torch.distributed as dist

from silo_agent.training.engine_spec import Device
from silo_agent.training.job import EvaluationJob, TrainingJob
from silo_agent.training.ranks.evaluate import measure
from silo_agent.training.ranks.kept_engine import KeptEngine
from silo_agent.training.ranks.local_training import train_in_ranks
from silo_agent.training.ranks.process_group import gpu_memory_bytes, join_ranks
from silo_agent.training.results import EvaluationResult
from silo_agent.training.run_files import ProgressWriter, RunFiles, write_result


class Work:
    """Made when every rank is there; `do` is collective."""

    def __init__(self, device: Device, threads: int) -> None:
        join_ranks(device, threads)
        self._kept = KeptEngine()

    def do(self, job: TrainingJob | EvaluationJob, fingerprint: str) -> None:
        """Return when the result is written and every rank is done with the job."""
        if isinstance(job, TrainingJob):
            train_in_ranks(job, fingerprint, self._kept)
        else:
            self._evaluate(job, fingerprint)
        dist.barrier()

    def _evaluate(self, job: EvaluationJob, fingerprint: str) -> None:
        began, files = time.monotonic(), RunFiles(job.output_dir)
        path = files.progress if dist.get_rank() == 0 else None
        progress = ProgressWriter(path, gpu_memory_bytes)
        progress.phase("loading the model")
        engine = self._kept.for_measuring(job)
        losses = measure(job, engine, self._kept.tokenizer, progress)
        if dist.get_rank() == 0:
            seconds = time.monotonic() - began
            result = EvaluationResult(losses=losses, seconds=seconds, together=engine.may_pack)
            write_result(files.result, result, fingerprint)
