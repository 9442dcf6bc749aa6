"""The tensors that a training run or an evaluation copies into its model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_contracts.adapters.adapter_format import AdapterFile, named_tensors, open_adapter
from data_contracts.adapters.starting_adapter import Float32Array, InitialAdapter, tensors_of
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

NamedTensors = Iterator[tuple[str, Float32Array]]


def starting_tensors(layout: AdapterLayout, path: Path | None) -> NamedTensors:
    """(name, array) of the adapter in `path`, through the gate, or of the initial one.

    Raises UntrustedInputError when the file is not an adapter of this layout.
    """
    if path is None:
        yield from tensors_of(InitialAdapter(layout)).items()
        return
    for target, a, b in open_adapter(path, layout).modules():
        yield from named_tensors(target, a, b).items()


def widened_tensors(layout: AdapterLayout, narrow: AdapterLayout, path: Path) -> NamedTensors:
    """(name, array) of an adapter of the layout `narrow` in `layout`, of higher rank.

    Zeros follow, and B is rescaled, so that each module's scaling * B @ A is the same. A whole
    tensor stays what it is, and one that `narrow` lacks is as it starts.
    """
    adapter = open_adapter(path, narrow)
    for target in layout.targets:
        yield from named_tensors(target, *_widened(adapter, layout, target)).items()


def _widened(
    adapter: AdapterFile, layout: AdapterLayout, target: AdapterTarget
) -> tuple[Float32Array, Float32Array]:
    if target.whole is not None:
        has_it = target in adapter.layout.targets
        return (adapter if has_it else InitialAdapter(layout)).module(target)
    wide_a = np.zeros((layout.rank, target.in_features), dtype=np.float32)
    wide_b = np.zeros((target.out_features, layout.rank), dtype=np.float32)
    if target in adapter.layout.targets:
        a, b = adapter.module(target)
        wide_a[: len(a)] = a
        wide_b[:, : len(a)] = b * np.float32(adapter.layout.scaling / layout.scaling)
    return wide_a, wide_b
