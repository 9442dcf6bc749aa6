"""Local training as a plain PyTorch loop in one process: what the ranks have to come to.

The residual is added to the base weights by hand, so that PEFT's several adapters are not part of
what they are compared with.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.utils.parametrize

from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.core_bases import Bases, bases_of, core_name
from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array, InitialAdapter
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from silo_agent.training.job import TrainingJob
from silo_agent.training.ranks.lora_model import adapter_parameters, load_lora_model, set_adapter
from silo_agent.training.ranks.packed_sequence import answer_tokens
from silo_agent.training.ranks.packing import (
    PackedSequences,
    PackingRule,
    pack_heldout,
    pack_training,
)
from silo_agent.training.ranks.starting_tensors import starting_tensors
from silo_agent.training.ranks.token_logits import answer_nll
from tests.silo_agent.training.tiny_jobs import shard_of

CPU = torch.device("cpu")


@dataclass(frozen=True)
class PlainTraining:
    """The adapter after training, and held-out losses of the base model and of the start."""

    adapter: dict[str, Float32Array]
    base_loss: float
    starting_loss: float


def train_plainly(job: TrainingJob, **changes: Any) -> PlainTraining:
    """Train `job` with some of its recipe changed."""
    recipe = job.recipe.model_copy(update=changes)
    # Tiny matrices are multiplied faster by one thread than by several.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    base_loss = plain_heldout(load_lora_model(job.model_dir, job.layout, "cpu"), job)
    model = plain_model(job)
    starting_loss = plain_heldout(model, job)
    parameters = adapter_parameters(model)
    letter = recipe.trained_factors.upper()
    trained = [p for name, p in parameters.items() if letter == "BOTH" or f"lora_{letter}" in name]
    _steps(model, job, recipe, trained)
    torch.set_num_threads(threads)
    adapter = {name: p.detach().numpy().copy() for name, p in parameters.items()}
    return PlainTraining(adapter, base_loss, starting_loss)


def train_cores_plainly(job: TrainingJob) -> dict[str, Float32Array]:
    """The changes of a job's cores, each weight formed as W + s B C A and no LoRA module in it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = load_lora_model(job.model_dir, job.layout, "cpu")
    _merge_residual(model, job)
    start = source_of(job.layout, job.starting_adapter)
    cores = dict[str, torch.nn.Parameter]()
    for target in job.layout.targets:
        bases = bases_of(start, target)
        weight = _WithCore(bases, job.layout.scaling)
        layer = model.get_submodule(f"base_model.model.{target.module}").base_layer
        torch.nn.utils.parametrize.register_parametrization(layer, "weight", weight)
        cores[core_name(target)] = weight.core
    begun = {name: core.detach().clone() for name, core in cores.items()}
    _steps(model, job, job.recipe, list(cores.values()))
    torch.set_num_threads(threads)
    return {name: (core.detach() - begun[name]).numpy() for name, core in cores.items()}


class _WithCore(torch.nn.Module):
    """W + s B C A of one module."""

    def __init__(self, bases: Bases, scaling: float) -> None:
        super().__init__()
        self.core = torch.nn.Parameter(torch.from_numpy(bases.core))
        self.a, self.b = torch.from_numpy(bases.a), torch.from_numpy(bases.b)
        self.scaling = scaling

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.scaling * (self.b @ self.core @ self.a)


def source_of(layout: AdapterLayout, path: Path | None) -> AdapterSource:
    """The adapter in a file, or that of the seed."""
    return InitialAdapter(layout) if path is None else open_adapter(path, layout)


def plain_model(job: TrainingJob) -> Any:
    """The model with the adapter and the residual that a job starts from."""
    model = load_lora_model(job.model_dir, job.layout, "cpu")
    set_adapter(model, starting_tensors(job.layout, job.starting_adapter))
    _merge_residual(model, job)
    return model


def plain_heldout(model: Any, job: TrainingJob) -> float:
    """Mean held-out loss of a model as it is."""
    sequences = _heldout_sequences(job)
    with torch.no_grad():
        total = sum(answer_nll(model, sequence, CPU).double().item() for sequence in sequences)
    return total / answer_tokens(sequences)


def _heldout_sequences(job: TrainingJob) -> PackedSequences:
    return pack_heldout(
        shard_of(job.model_dir, job.heldout_records),
        PackingRule(job.recipe.sequence_length),
        limit=job.heldout_sequences,
        seed=job.layout.seed,
    )


def _steps(
    model: Any, job: TrainingJob, recipe: TrainingRecipe, trained: list[torch.nn.Parameter]
) -> None:
    size = recipe.sequences_per_step
    packed, _ = pack_training(
        shard_of(job.model_dir, job.train_records),
        PackingRule(recipe.sequence_length),
        count=recipe.local_steps * size,
        seed=recipe.seed,
        round_number=job.round,
    )
    start = [parameter.detach().clone() for parameter in trained]
    rate, mu = float(recipe.learning_rate), float(recipe.proximal_mu)
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=float(recipe.weight_decay))
    for step in range(recipe.local_steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / (recipe.warmup_steps + 1))
        sequences = packed[step * size : (step + 1) * size]
        nll = torch.stack([answer_nll(model, s, CPU) for s in sequences]).sum()
        pairs = zip(trained, start, strict=True)
        moved = torch.stack([(now - before).square().sum() for now, before in pairs]).sum()
        loss = nll / answer_tokens(sequences) + mu / 2 * moved
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trained, float(recipe.max_gradient_norm))
        optimizer.step()


def _merge_residual(model: Any, job: TrainingJob) -> None:
    if job.starting_residual is None or job.residual_layout is None:
        return
    weights = dict(model.named_parameters())
    for target, a, b in open_adapter(job.starting_residual, job.residual_layout).modules():
        weight = weights[f"base_model.model.{target.module}.base_layer.weight"]
        with torch.no_grad():
            weight += torch.from_numpy(np.asarray(b @ a))
