"""Adapters for tests, written by safetensors itself and read through the product's gate."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from data_contracts.adapter_format import AdapterFile, lora_a_name, lora_b_name, open_adapter
from data_contracts.records.round_plan import AdapterSpec, AdapterTarget

TARGETS = (
    AdapterTarget(module="model.layers.0.self_attn.q_proj", in_features=12, out_features=10),
    AdapterTarget(module="model.layers.0.mlp.up_proj", in_features=12, out_features=20),
)


def spec_of(
    rank: int = 3, alpha: int = 6, targets: tuple[AdapterTarget, ...] = TARGETS
) -> AdapterSpec:
    return AdapterSpec(rank=rank, alpha=alpha, seed=7, targets=targets)


def random_tensors(spec: AdapterSpec, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    tensors = {}
    for target in spec.targets:
        a = rng.standard_normal((spec.rank, target.in_features))
        b = rng.standard_normal((target.out_features, spec.rank))
        tensors[lora_a_name(target.module)] = a.astype(np.float32)
        tensors[lora_b_name(target.module)] = b.astype(np.float32)
    return tensors


def write_adapter(path: Path, spec: AdapterSpec, seed: int = 0) -> AdapterFile:
    save_file(random_tensors(spec, seed), path)
    return open_adapter(path, spec)


def dense(adapter: AdapterFile, target: AdapterTarget) -> np.ndarray:
    """scaling * B @ A in float64."""
    a, b = adapter.module(target)
    return adapter.spec.scaling * (b.astype(np.float64) @ a.astype(np.float64))
