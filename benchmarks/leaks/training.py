"""One silo's local training, step by step, with what it would send after some of the steps.

The product's model, tokens, loss, optimizer and clipping, in one process. Each record is a sequence
of its own: packing changes neither the loss nor its gradient. A private training cuts the gradient
of each record and adds Gaussian noise to their sum, by the formula of Abadi et al. 2016, without
the Poisson draw that the guarantee needs besides: what is added to a step is the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_contracts.adapters.starting_adapter import Float32Array, InitialAdapter, tensors_of
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import CAUSAL_TASK
from silo_agent.training.ranks.base_model import load_tokenizer
from silo_agent.training.ranks.families.family import Telling
from silo_agent.training.ranks.families.registry import family_of
from silo_agent.training.ranks.lora_model import load_lora_model, set_adapter, trained_parameters
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.shard_cache import ShardCache
from silo_agent.training.ranks.token_logits import batch_nll

LENGTH, DAY = 128, "2026-01-01"
LEARNING_RATE, CLIP = 1e-3, 1.0
CPU = torch.device("cpu")

Tensors = dict[str, Float32Array]


@dataclass(frozen=True)
class Noise:
    """Of a private step: each record's gradient is cut to `clip`, and Gaussian noise of `sigma`
    times that is added to their sum."""

    clip: float
    sigma: float


def records_of(model_dir: Path, records: Path) -> list[PackedSequence]:
    """Each record of a file as a sequence, in the file's order."""
    telling = Telling(model_dir, DAY, LENGTH)
    cache = ShardCache(records.with_name("shards"), family_of(CAUSAL_TASK), telling, load_tokenizer)
    shard, told = cache.of(records), []
    for place in np.flatnonzero(shard.fit(np.arange(len(shard)), LENGTH).is_usable):
        sequence = PackedSequence()
        sequence.append(*shard.cut(int(place), LENGTH))
        told.append(sequence)
    return told


class Silo:
    """A model with an adapter of `layout` that trains."""

    def __init__(self, model_dir: Path, layout: AdapterLayout) -> None:
        self.layout, self.model = layout, load_lora_model(model_dir, layout, "cpu")
        self.parameters = dict(trained_parameters(self.model))

    def start(self, tensors: Tensors | None) -> Tensors:
        """Put an adapter in, or that of the seed with B zero; returns a copy of it."""
        begun = tensors or tensors_of(InitialAdapter(self.layout))
        set_adapter(self.model, iter(begun.items()))
        return self.adapter()

    def adapter(self) -> Tensors:
        """As it is now."""
        return {n: p.detach().numpy().copy() for n, p in self.parameters.items()}

    def gradient(self, records: Sequence[PackedSequence]) -> Tensors:
        """Of the mean loss of an answer token, at the adapter as it is now."""
        self._backward(records)
        return {n: _gradient(p).numpy().copy() for n, p in self.parameters.items()}

    def steps(
        self, batches: Sequence[Sequence[PackedSequence]], noise: Noise | None = None, seed: int = 0
    ) -> Iterator[Tensors]:
        """The adapter after each step on a batch."""
        drawn = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(self.parameters.values(), LEARNING_RATE, weight_decay=0.0)
        self.model.train()
        for batch in batches:
            if noise is None:
                self._backward(batch)
                torch.nn.utils.clip_grad_norm_(self.parameters.values(), CLIP)
            else:
                self._private(batch, noise, drawn)
            optimizer.step()
            yield self.adapter()

    def _backward(self, batch: Sequence[PackedSequence]) -> None:
        for parameter in self.parameters.values():
            parameter.grad = None
        tokens = sum(each.answer_tokens for each in batch)
        (batch_nll(self.model, batch, CPU) / tokens).backward()  # type: ignore[no-untyped-call]

    def _private(
        self, batch: Sequence[PackedSequence], noise: Noise, drawn: torch.Generator
    ) -> None:
        summed = {n: torch.zeros_like(p) for n, p in self.parameters.items()}
        for record in batch:
            self._backward([record])
            norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), noise.clip)
            if not torch.isfinite(norm):
                raise ValueError(f"expected a finite gradient, found a norm of {norm}")
            for name, parameter in self.parameters.items():
                summed[name] += _gradient(parameter)
        for name, parameter in self.parameters.items():
            added = torch.randn(parameter.shape, generator=drawn) * noise.sigma * noise.clip
            parameter.grad = (summed[name] + added) / len(batch)


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    found: Any = parameter.grad
    return torch.zeros_like(parameter) if found is None else found


def difference(local: Tensors, start: Tensors) -> Tensors:
    """What a submission tells whoever has its start."""
    return {name: array - start[name] for name, array in local.items()}
