"""Adapters for tests, written by safetensors itself and read through the product's gate."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from aggregator.merge.merge_inputs import LocalAdapter, MergeInputs
from data_contracts.adapters.adapter_format import (
    AdapterFile,
    lora_a_name,
    lora_b_name,
    open_adapter,
)
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.merge_spec import MergeSpec

TARGETS = (
    AdapterTarget(module="model.layers.0.self_attn.q_proj", in_features=12, out_features=10),
    AdapterTarget(module="model.layers.0.mlp.up_proj", in_features=12, out_features=20),
)


def layout_with(
    rank: int = 3, alpha: int = 6, targets: tuple[AdapterTarget, ...] = TARGETS
) -> AdapterLayout:
    return AdapterLayout(rank=rank, alpha=alpha, seed=7, targets=targets)


def random_tensors(layout: AdapterLayout, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    tensors = {}
    for target in layout.targets:
        a = rng.standard_normal((layout.rank, target.in_features))
        b = rng.standard_normal((target.out_features, layout.rank))
        tensors[lora_a_name(target.module)] = a.astype(np.float32)
        tensors[lora_b_name(target.module)] = b.astype(np.float32)
    return tensors


def write_adapter(path: Path, layout: AdapterLayout, seed: int = 0) -> AdapterFile:
    return write_tensors(path, layout, random_tensors(layout, seed))


def write_tensors(path: Path, layout: AdapterLayout, tensors: dict[str, np.ndarray]) -> AdapterFile:
    save_file(tensors, path)
    return open_adapter(path, layout)


def inputs_of(
    adapters: Iterable[tuple[AdapterFile, int]],
    layout: AdapterLayout,
    starting: AdapterSource | None = None,
    round_number: int = 1,
    residual: AdapterSource | None = None,
    **merge: Any,
) -> MergeInputs:
    """A merge of files with their weights; `merge` are fields of `MergeSpec`."""
    locals_ = [LocalAdapter(a, artifact_of_file(a.path).digest, w) for a, w in adapters]
    rule = MergeSpec.model_validate({"rule": "stack_truncate", "weight_cap_tokens": 100} | merge)
    start = starting or InitialAdapter(layout)
    return MergeInputs(layout, rule, round_number, tuple(locals_), start, residual=residual)


def dense(adapter: AdapterSource, target: AdapterTarget) -> np.ndarray:
    """scaling * B @ A in float64."""
    a, b = adapter.module(target)
    return adapter.layout.scaling * (b.astype(np.float64) @ a.astype(np.float64))
