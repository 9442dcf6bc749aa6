"""A model on one device, without DeepSpeed, in which adapters are exchanged and measured."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from silo_agent.training.job import EvaluationJob
from silo_agent.training.loss import HeldoutSums
from silo_agent.training.ranks.devices import single_device
from silo_agent.training.ranks.families.registry import family_of
from silo_agent.training.ranks.lora_model import ADAPTER_NAME, load_lora_model, set_adapter
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.starting_tensors import NamedTensors


class PlainModel:
    """The base model of a job with its LoRA modules."""

    def __init__(self, job: EvaluationJob) -> None:
        self._device = single_device(job.device)
        self._family = family_of(job.task)
        self._family.load_beside(job.model_dir, self._device)
        self._model = load_lora_model(
            job.model_dir, job.layout, job.device, residual=job.residual_layout, task=job.task
        )
        self._model.to(self._device).eval()

    @cached_property
    def may_pack(self) -> bool:
        """Whether conversations may share a sequence, asked once; see `packing_check`."""
        return self._family.may_pack(self._model, self._device)

    def put(self, tensors: NamedTensors, adapter: str = ADAPTER_NAME) -> None:
        """Put an adapter into the model."""
        set_adapter(self._model, tensors, adapter)

    def heldout(self, sequences: Sequence[PackedSequence]) -> HeldoutSums:
        """Summed loss of every record and how much it was asked, in the order of the sequences."""
        counts = [tokens for each in sequences for tokens in each.record_answer_tokens]
        with torch.no_grad():
            measured = torch.cat(
                [self._family.measured(self._model, each, self._device) for each in sequences]
            )
        return self._family.scores(measured).sums(counts)

    def measured_model(self) -> tuple[Any, torch.device]:
        """The model as it measures, and where it is."""
        return self._model, self._device
