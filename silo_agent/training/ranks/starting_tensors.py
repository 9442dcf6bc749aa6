"""The tensors that a training run or an evaluation copies into its model."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_contracts.adapters.adapter_format import AdapterFile, named_tensors, open_adapter
from data_contracts.adapters.core_bases import bases_of, core_name
from data_contracts.adapters.starting_adapter import (
    AdapterSource,
    Float32Array,
    InitialAdapter,
)
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from silo_agent.training.job import TrainingJob

NamedTensors = Iterator[tuple[str, Float32Array]]


def starting_tensors(layout: AdapterLayout, path: Path | None) -> NamedTensors:
    """(name, array) of the adapter in `path`, through the gate, or of the initial one.

    Raises UntrustedInputError when the file is not an adapter of this layout.
    """
    source = _source(layout, path)
    for target in layout.targets:
        yield from named_tensors(target, *source.module(target)).items()


def begun_tensors(job: TrainingJob) -> NamedTensors:
    """(name, array) of all that a model has when it begins a job; raises as `starting_tensors`."""
    if job.recipe.trained_factors == "core":
        return bases_and_cores(_source(job.layout, job.starting_adapter))
    return starting_tensors(job.layout, job.starting_adapter)


def left_tensors(job: TrainingJob, trained: dict[str, Float32Array]) -> dict[str, Float32Array]:
    """Of a job that leaves a factor as it was, all that its file has, by name.

    What is not trained is taken from the start: the model may round it to bfloat16.
    """
    if job.recipe.trained_factors == "core":
        return changes_of_cores(_source(job.layout, job.starting_adapter), trained)
    return dict(starting_tensors(job.layout, job.starting_adapter)) | trained


def bases_and_cores(source: AdapterSource) -> NamedTensors:
    """(name, array) of an adapter as bases with the cores between them."""
    for target in source.layout.targets:
        if target.whole is not None:
            yield from named_tensors(target, *source.module(target)).items()
            continue
        bases = bases_of(source, target)
        yield from named_tensors(target, bases.a, bases.b).items()
        yield core_name(target), bases.core


def changes_of_cores(
    source: AdapterSource, trained: dict[str, Float32Array]
) -> dict[str, Float32Array]:
    """`trained` with the changes in place of the cores that began as those of `source`."""
    begun = {core_name(target): bases_of(source, target).core for target in source.layout.pairs}
    return trained | {name: trained[name] - core for name, core in begun.items()}


def widened_tensors(layout: AdapterLayout, narrow: AdapterLayout, path: Path) -> NamedTensors:
    """(name, array) of an adapter of the layout `narrow` in `layout`, of higher rank.

    Zeros follow, and B is rescaled, so that each module's scaling * B @ A is the same. A whole
    tensor stays what it is, and one that `narrow` lacks is as it starts.
    """
    adapter = open_adapter(path, narrow)
    for target in layout.targets:
        yield from named_tensors(target, *_widened(adapter, layout, target)).items()


def _source(layout: AdapterLayout, path: Path | None) -> AdapterSource:
    return InitialAdapter(layout) if path is None else open_adapter(path, layout)


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
