"""The tensors that a training run or an evaluation copies into its model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_contracts.adapter_format import AdapterFile, lora_a_name, lora_b_name, open_adapter
from data_contracts.records.round_plan import AdapterSpec, AdapterTarget
from data_contracts.starting_adapter import Float32Array, InitialAdapter, tensors_of


def starting_tensors(spec: AdapterSpec, path: Path | None) -> Iterator[tuple[str, Float32Array]]:
    """(name, array) of the adapter in `path`, through the gate, or of the initial one.

    Raises UntrustedInputError when the file is not an adapter of this spec.
    """
    if path is None:
        yield from tensors_of(InitialAdapter(spec)).items()
        return
    for target, a, b in open_adapter(path, spec).modules():
        yield lora_a_name(target.module), a
        yield lora_b_name(target.module), b


def widened_tensors(
    spec: AdapterSpec, narrow: AdapterSpec, path: Path
) -> Iterator[tuple[str, Float32Array]]:
    """(name, array) of an adapter of the layout `narrow` in the layout `spec`, of higher rank.

    Zeros follow, and B is rescaled, so that each module's scaling * B @ A is the same.
    """
    adapter = open_adapter(path, narrow)
    for target in spec.targets:
        a, b = _widened(adapter, spec, target)
        yield lora_a_name(target.module), a
        yield lora_b_name(target.module), b


def _widened(
    adapter: AdapterFile, spec: AdapterSpec, target: AdapterTarget
) -> tuple[Float32Array, Float32Array]:
    wide_a = np.zeros((spec.rank, target.in_features), dtype=np.float32)
    wide_b = np.zeros((target.out_features, spec.rank), dtype=np.float32)
    if target in adapter.spec.targets:
        a, b = adapter.module(target)
        wide_a[: len(a)] = a
        wide_b[:, : len(a)] = b * np.float32(adapter.spec.scaling / spec.scaling)
    return wide_a, wide_b
