"""An adapter with one pair and tensors that are trained whole, of each kind and start."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from data_contracts.adapters.adapter_format import Float32Array, expected_shapes
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, tensors_of
from data_contracts.adapters.whole_tensors import pair_of, whole_name
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

LAYOUT = AdapterLayout(
    rank=2,
    alpha=4,
    seed=7,
    targets=(
        AdapterTarget(module="model.down", in_features=6, out_features=3),
        AdapterTarget(
            module="classifier.weight",
            in_features=6,
            out_features=5,
            whole="matrix",
            initial="normal",
        ),
        AdapterTarget(
            module="classifier.bias", in_features=1, out_features=5, whole="vector", initial="zeros"
        ),
        AdapterTarget(
            module="norm.weight", in_features=1, out_features=6, whole="vector", initial="ones"
        ),
    ),
)
PAIR, WEIGHT, BIAS, NORM = LAYOUT.targets
WEIGHT_NAME, BIAS_NAME, NORM_NAME = (whole_name(t.module) for t in LAYOUT.wholes)
START = InitialAdapter(LAYOUT)
Tensors = dict[str, np.ndarray[Any, Any]]


class InMemory:
    """An adapter whose tensors are in memory."""

    def __init__(self, layout: AdapterLayout, tensors: Tensors) -> None:
        self.layout, self.tensors = layout, tensors

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        names = [n for n in self.tensors if n.startswith(whole_name(target.module))]
        return pair_of(target, [self.tensors[name] for name in sorted(names)])


def moved(
    seed: int = 0, scale: float = 0.1, layout: AdapterLayout = LAYOUT, only: str = ""
) -> Tensors:
    """The initial tensors after steps of that size; of `only` those whose name has it."""
    rng, start = np.random.default_rng(seed), tensors_of(InitialAdapter(layout))
    steps = {
        name: (rng.standard_normal(shape) * scale).astype(np.float32)
        for name, shape in expected_shapes(layout).items()
    }
    return {n: tensor + steps[n] if only in n else tensor for n, tensor in start.items()}


def written(path: Path, tensors: Tensors) -> Path:
    """By safetensors itself."""
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)
    return path


def source(seed: int = 0, scale: float = 0.1, only: str = "") -> AdapterSource:
    """`moved` in memory."""
    return InMemory(LAYOUT, moved(seed, scale, only=only))
