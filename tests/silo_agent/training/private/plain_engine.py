"""An engine without DeepSpeed: the model and PyTorch's optimizer, in this process alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from silo_agent.training.job import TrainingJob
from silo_agent.training.ranks.families.family import Family
from silo_agent.training.ranks.families.registry import family_of
from silo_agent.training.ranks.lora_model import load_lora_model, set_adapter, trained_parameters
from silo_agent.training.ranks.starting_tensors import starting_tensors
from tests.silo_agent.training.private.record_samples import CPU


class PlainEngine:
    """At the start of a job; satisfies `private_steps.Stepped`."""

    def __init__(self, job: TrainingJob) -> None:
        self.spec, self._rate = job.engine, float(job.recipe.learning_rate)
        self.model = load_lora_model(job.model_dir, job.layout, "cpu", task=job.task)
        set_adapter(self.model, starting_tensors(job.layout, job.starting_adapter))
        self.family: Family = family_of(job.task)
        self._optimizer = torch.optim.AdamW(
            trained_parameters(self.model).values(), lr=self._rate, weight_decay=0.0
        )

    def in_training(self) -> tuple[Any, torch.device]:
        """As `LoraEngine`."""
        self.model.train()
        return self.model, CPU

    def step_along(self, index: int, gradients: Mapping[str, torch.Tensor]) -> None:
        """As `LoraEngine`, without warm-up."""
        del index
        for name, parameter in trained_parameters(self.model).items():
            parameter.grad = gradients[name].clone()
        self._optimizer.step()


@contextmanager
def only_rank(root: Path) -> Iterator[None]:
    """A group of this process alone."""
    store = dist.FileStore(str(root / "store"), 1)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    threads = torch.get_num_threads()
    # Tiny matrices are multiplied faster by one thread than by several.
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        dist.destroy_process_group()
