"""Small adapters for the tests of compression."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_contracts.adapters.adapter_format import (
    AdapterFile,
    expected_shapes,
    lora_a_name,
    lora_b_name,
    open_adapter,
)
from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from silo_agent.compression.error_feedback import Compressed, LocalRound, RoundFiles, compress

LAYOUT = AdapterLayout(
    rank=3,
    alpha=6,
    seed=1,
    targets=(
        AdapterTarget(module="model.layers.0.q_proj", in_features=37, out_features=25),
        AdapterTarget(module="model.layers.0.up_proj", in_features=37, out_features=1500),
    ),
)
FIRST, SECOND = LAYOUT.targets
Tensors = dict[str, Float32Array]


@dataclass(frozen=True)
class InMemory:
    """An adapter whose tensors are in memory."""

    layout: AdapterLayout
    tensors: Mapping[str, Float32Array]

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        return self.tensors[lora_a_name(target.module)], self.tensors[lora_b_name(target.module)]


def random_tensors(seed: int, scale: float = 0.05, layout: AdapterLayout = LAYOUT) -> Tensors:
    """Every tensor of the layout, normal with a standard deviation of `scale`."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) * scale).astype(np.float32)
        for name, shape in expected_shapes(layout).items()
    }


def random_adapter(seed: int, scale: float = 0.05) -> InMemory:
    return InMemory(LAYOUT, random_tensors(seed, scale))


def moved(start: InMemory, seed: int, scale: float = 0.01, only: str = "") -> InMemory:
    """`start` after local steps; `only` "A" or "B" moves that factor alone."""
    steps = random_tensors(seed, scale)
    tensors = {
        name: tensor + steps[name] if f"lora_{only}" in name else tensor
        for name, tensor in start.tensors.items()
    }
    return InMemory(start.layout, tensors)


def files_in(directory: Path, is_rebasing: bool = False) -> RoundFiles:
    factors = directory / "factors.safetensors" if is_rebasing else None
    return RoundFiles(directory / "sent.safetensors", directory / "residual.safetensors", factors)


def residual_of(files: RoundFiles) -> AdapterFile:
    return open_adapter(files.residual, LAYOUT)


def compressed(round_: LocalRound, directory: Path) -> Compressed:
    return compress(round_, None, files_in(directory))
