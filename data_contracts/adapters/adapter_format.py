"""The gate for adapter bytes that another party wrote.

safetensors' own reader accepts duplicate names, NaN, `../` in names and absurd shapes, and spends
seconds and gigabytes on a bloated header. So this gate reads the header first, with a size cap,
and lets through only float32 tensors with exactly the names and shapes that the plan's adapter
layout implies, laid out without gaps, every value finite, and not what any adapter starts as.
A tensor that is trained whole is there in its own shape, (out, in) or (out,).
Layout reference: https://github.com/huggingface/safetensors (format section).
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_contracts.adapters.tensor_layout import Entry, bytes_limit, open_layout, rejected
from data_contracts.adapters.whole_tensors import (
    adds_something,
    pair_of,
    stored,
    whole_name,
    whole_shape,
)
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

MAX_ABSOLUTE_VALUE = 1e4
"""Far beyond any trained LoRA factor, far below what could overflow a float32 product."""

NOTHING_ADDED = (
    "at least one non-zero B, or a whole tensor that is not as it starts",
    "every B is zero, and every whole tensor as it starts or zero",
)
"""What was expected and found of an adapter that leaves the model as it starts."""

Float32Array = npt.NDArray[np.float32]


def lora_a_name(module: str) -> str:
    """PEFT's tensor name of A (rank x in_features) of a module."""
    return f"base_model.model.{module}.lora_A.weight"


def lora_b_name(module: str) -> str:
    """PEFT's tensor name of B (out_features x rank) of a module."""
    return f"base_model.model.{module}.lora_B.weight"


def expected_shapes(layout: AdapterLayout) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that an adapter of this layout has, and no other."""
    shapes: dict[str, tuple[int, ...]] = {}
    for target in layout.targets:
        shapes |= expected_shapes_of(layout.rank, target)
    return shapes


def adapter_entries(layout: AdapterLayout) -> dict[str, Entry]:
    """Every entry of an adapter file, in the order of `expected_shapes`."""
    entries: dict[str, Entry] = {}
    for target in layout.targets:
        entries |= module_entries(layout.rank, target)
    return entries


def module_entries(rank: int, target: AdapterTarget) -> dict[str, Entry]:
    """The entries of A and of B of one module, or that of the tensor that is trained whole."""
    return {name: Entry.float32(*shape) for name, shape in expected_shapes_of(rank, target)}


def adapter_bytes_limit(layout: AdapterLayout) -> int:
    """Largest file in bytes that can hold an adapter of this layout, header included."""
    return bytes_limit(adapter_entries(layout))


@dataclass(frozen=True)
class AdapterFile:
    """An adapter whose header passed the gate; tensors are read one module at a time."""

    path: Path
    layout: AdapterLayout
    data_start: int
    offsets: dict[str, tuple[int, int]]

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """(A, B) of one module as float32 arrays; raises UntrustedInputError if not finite.

        Of a tensor that is trained whole A is the identity, a view, and B (out x in) the tensor.
        """
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            shapes = expected_shapes_of(self.layout.rank, target)
            tensors = [self._tensor(descriptor, name, shape) for name, shape in shapes]
        finally:
            os.close(descriptor)
        return pair_of(target, tensors)

    def modules(self) -> Iterator[tuple[AdapterTarget, Float32Array, Float32Array]]:
        """Every module in the order of the layout."""
        for target in self.layout.targets:
            a, b = self.module(target)
            yield target, a, b

    def _tensor(self, descriptor: int, name: str, shape: tuple[int, ...]) -> Float32Array:
        start, end = self.offsets[name]
        array: Float32Array = np.empty(shape, dtype="<f4")
        read = os.preadv(descriptor, [array.data.cast("B")], self.data_start + start)
        if read != end - start:
            raise rejected("adapter file", "its full length", "a shorter file", "truncated")
        # NaN wins in min and max, so two quick passes tell whether every value is finite.
        largest = max(float(array.max()), -float(array.min()))
        if not math.isfinite(largest):
            raise rejected(name, "finite values", "NaN or infinity", "not_finite")
        if largest > MAX_ABSOLUTE_VALUE:
            limit = f"values of at most {MAX_ABSOLUTE_VALUE:g}"
            raise rejected(name, limit, f"{largest:g}", "value_too_large")
        return array


def expected_shapes_of(rank: int, target: AdapterTarget) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Name and shape of the A and the B of one module, or of the tensor that is trained whole."""
    if target.whole is not None:
        return ((whole_name(target.module), whole_shape(target)),)
    return (
        (lora_a_name(target.module), (rank, target.in_features)),
        (lora_b_name(target.module), (target.out_features, rank)),
    )


def named_tensors(
    target: AdapterTarget, a: Float32Array, b: Float32Array
) -> dict[str, Float32Array]:
    """What a file has of one module with the factors A and B, under its names."""
    # The rank only decides shapes, which are here already.
    names = [name for name, _ in expected_shapes_of(1, target)]
    return dict(zip(names, stored(target, a, b), strict=True))


def open_adapter(path: Path, layout: AdapterLayout) -> AdapterFile:
    """Check size, header, names, shapes and dtypes before any tensor is read."""
    opened = open_layout(path, adapter_entries(layout), "adapter file")
    return AdapterFile(path, layout, opened.data_start, opened.offsets)


def check_adapter(path: Path, layout: AdapterLayout) -> AdapterFile:
    """The whole gate: `open_adapter`, then every value finite and something added by any B."""
    adapter = open_adapter(path, layout)
    contributes = False
    for target, _, b in adapter.modules():
        contributes = contributes or adds_something(layout, target, b)
    require_contribution(contributes)
    return adapter


def require_contribution(contributes: bool) -> None:
    """Raises UntrustedInputError where `contributes`, whether any B adds something, is False."""
    if not contributes:
        raise rejected("adapter", *NOTHING_ADDED, "zero_delta")
