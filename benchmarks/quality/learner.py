"""The base with LoRA modules in one worker process: takes factors, trains them, measures losses.

PEFT's modules, plain PyTorch AdamW, one thread. A learner is kept for the life of its process and
every use starts from factors that are copied in, so nothing of an earlier job is left over.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from benchmarks.quality.base_model import Tokens, next_token_loss
from benchmarks.quality.private_training import Noise, PrivateGradients
from benchmarks.quality.settings import Settings
from data_contracts.adapters.adapter_format import Float32Array, lora_a_name, lora_b_name
from data_contracts.adapters.core_bases import WithBases
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, tensors_of
from data_contracts.adapters.whole_tensors import identity, whole_name
from data_contracts.protocol.records.adapter_layout import (
    CORE_SUFFIX,
    AdapterLayout,
    AdapterTarget,
)
from data_contracts.protocol.records.training_recipe import TrainedFactors
from silo_agent.training.ranks.lora_model import (
    RESIDUAL_NAME,
    load_lora_model,
    placed_parameters,
    set_adapter,
)
from silo_agent.training.ranks.starting_tensors import bases_and_cores, changes_of_cores

_EVALUATED_AT_ONCE = 48


@dataclass(frozen=True)
class MemoryAdapter:
    """Factors in memory under their file names, as an `AdapterSource`."""

    layout: AdapterLayout
    tensors: dict[str, Float32Array]

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) and B (out x rank)."""
        return self.tensors[lora_a_name(target.module)], self.tensors[lora_b_name(target.module)]


@dataclass(frozen=True)
class MemoryCores:
    """Changes of cores in memory under their file names, as an `AdapterSource`."""

    layout: AdapterLayout
    tensors: dict[str, Float32Array]

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """The identity, and the change (rank x rank)."""
        return identity(target.in_features), self.tensors[whole_name(target.module)]


@dataclass(frozen=True)
class Training:
    """One step for each batch (sequences, length), at one learning rate; with `noise` private."""

    batches: Sequence[Tokens]
    learning_rate: float
    trained: TrainedFactors = "both"
    proximal_mu: float = 0.0
    noise: Noise | None = None


@lru_cache(maxsize=8)
def base_targets(base: Path) -> tuple[AdapterTarget, ...]:
    """Every linear module of the base except the output layer."""
    model = LlamaForCausalLM.from_pretrained(base, local_files_only=True)
    return tuple(
        AdapterTarget(module=name, in_features=m.in_features, out_features=m.out_features)
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and name != "lm_head"
    )


@lru_cache(maxsize=8)
def learner(
    base: Path,
    layout: AdapterLayout,
    beside: AdapterLayout | None = None,
    trained: TrainedFactors = "both",
) -> "Learner":
    """This process's learner for a layout; the seeds of layouts do not matter to it.

    For `trained` of "core" one that trains cores, for all else one that trains factors.
    """
    return Learner(base, layout, beside, trained)


class Learner:
    """One model. `beside` is the layout of a second, frozen adapter."""

    def __init__(
        self,
        base: Path,
        layout: AdapterLayout,
        beside: AdapterLayout | None,
        trained: TrainedFactors,
    ) -> None:
        self._beside = beside
        cored: TrainedFactors = "core" if trained == "core" else "both"
        self._model: Any = load_lora_model(base, layout, "cpu", residual=beside, trained=cored)
        self._parameters = placed_parameters(self._model)

    def train(
        self,
        start: AdapterSource,
        training: Training,
        settings: Settings,
        residual: AdapterSource | None = None,
    ) -> AdapterSource:
        """The adapter after one AdamW step per batch from `start`; a new optimizer every time."""
        is_cored = training.trained == "core"
        self._load(start, residual)
        if is_cored:
            set_adapter(self._model, bases_and_cores(start))
        self._model.train()
        with _trainable(self._parameters, training.trained) as chosen:
            self._steps(chosen, training, settings)
        arrays = {name: p.detach().numpy().copy() for name, p in self._parameters.items()}
        if is_cored:
            changes = changes_of_cores(start, arrays)
            return WithBases(start, MemoryCores(start.layout.cores, changes))
        return MemoryAdapter(start.layout, arrays)

    def topic_losses(
        self, adapter: AdapterSource, heldout: Tokens, residual: AdapterSource | None = None
    ) -> np.ndarray:
        """Mean loss per token of each topic (topics,), of token ids (topics, sequences, length)."""
        self._load(adapter, residual)
        self._model.eval()
        with torch.no_grad():
            return np.array([self._loss(torch.from_numpy(topic)) for topic in heldout])

    def _loss(self, sequences: torch.Tensor) -> float:
        parts = torch.split(sequences, _EVALUATED_AT_ONCE)
        total = sum(next_token_loss(self._model, part).item() * len(part) for part in parts)
        return total / len(sequences)

    def _steps(
        self, chosen: list[torch.nn.Parameter], training: Training, settings: Settings
    ) -> None:
        optimizer = torch.optim.AdamW(
            chosen, lr=training.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        with self._gradients(chosen, training, settings) as put:
            for step, batch in enumerate(training.batches):
                share = min(1.0, (step + 1) / (settings.warmup_steps + 1))
                optimizer.param_groups[0]["lr"] = training.learning_rate * share
                put(batch)
                optimizer.step()
                optimizer.zero_grad()

    @contextmanager
    def _gradients(
        self, chosen: list[torch.nn.Parameter], training: Training, settings: Settings
    ) -> Iterator[Callable[[Tokens], None]]:
        """What puts a step's gradient where the optimizer looks for it."""
        if training.noise is not None:
            trained = {name: p for name, p in self._parameters.items() if p.requires_grad}
            private = PrivateGradients(self._model, trained, training.noise)
            yield private.put
            private.end()
            return
        anchors = [p.detach().clone() for p in chosen] if training.proximal_mu else []

        def put(batch: Tokens) -> None:
            torch.autograd.backward(next_token_loss(self._model, torch.from_numpy(batch)))
            for parameter, anchor in zip(chosen, anchors, strict=False):
                if parameter.grad is not None:  # the gradient of mu/2 |p - p_start|^2
                    parameter.grad.add_(parameter.detach() - anchor, alpha=training.proximal_mu)
            torch.nn.utils.clip_grad_norm_(chosen, settings.max_gradient_norm)

        yield put

    def _load(self, adapter: AdapterSource, residual: AdapterSource | None) -> None:
        set_adapter(self._model, tensors_of(adapter).items())
        if self._beside is not None:
            beside = residual or InitialAdapter(self._beside)
            set_adapter(self._model, tensors_of(beside).items(), RESIDUAL_NAME)


@contextmanager
def _trainable(
    parameters: dict[str, torch.nn.Parameter], trained: TrainedFactors
) -> Iterator[list[torch.nn.Parameter]]:
    """Only the factors that are trained ask for gradients."""
    wanted = {"both": ".lora_", "a": ".lora_A.", "b": ".lora_B.", "core": CORE_SUFFIX}[trained]
    for name, parameter in parameters.items():
        parameter.requires_grad_(wanted in name)
    try:
        yield [p for p in parameters.values() if p.requires_grad]
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
            parameter.grad = None
