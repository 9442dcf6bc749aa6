"""The two halves of an adapter whose A is shared and whose B stays: taken apart, and put together.

What is exchanged has the layout `AdapterLayout.a_alone`, what is trained and measured that of its
pairs. B lies in a file of its own, under PEFT's names. What the plan trains whole, such as a head,
is with A: all silos share it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from data_contracts.adapters.adapter_format import lora_b_name
from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array
from data_contracts.adapters.tensor_layout import Entry, OpenedLayout, open_layout, rejected
from data_contracts.adapters.whole_tensors import identity
from data_contracts.protocol.records.adapter_layout import (
    A_SUFFIX,
    AdapterLayout,
    AdapterTarget,
)
from infra.disk.durable_files import write_durably


@dataclass(frozen=True)
class FactorsA:
    """Of an adapter with pairs what leaves: A of each, and what is trained whole."""

    pairs: AdapterSource

    @property
    def layout(self) -> AdapterLayout:
        """That of what is exchanged."""
        return self.pairs.layout.a_alone

    def module(self, target: AdapterTarget, /) -> tuple[Float32Array, Float32Array]:
        """The identity, as a view, and A (rank x in); of a whole tensor that itself."""
        if not target.is_shared_a:
            return self.pairs.module(target)
        name = target.module.removesuffix(A_SUFFIX)
        pair = next(each for each in self.pairs.layout.pairs if each.module == name)
        return identity(target.in_features), self.pairs.module(pair)[0]


@dataclass(frozen=True)
class FactorsB:
    """The file of a silo's own B; `layout` is that of the pairs."""

    path: Path
    layout: AdapterLayout
    opened: OpenedLayout

    def of(self, target: AdapterTarget) -> Float32Array:
        """B (out x rank) of one module; raises UntrustedInputError where a value is not finite."""
        name, shape = lora_b_name(target.module), (target.out_features, self.layout.rank)
        at = self.opened.data_start + self.opened.offsets[name][0]
        values: Float32Array = np.fromfile(
            self.path, dtype="<f4", count=shape[0] * shape[1], offset=at
        )
        if not np.isfinite(values).all():
            raise rejected(name, "finite values", "NaN or infinity", "not_finite")
        return values.reshape(shape)


@dataclass(frozen=True)
class WithOwnB:
    """Shared factors A with a silo's own B, as an adapter with pairs; without `own` B is zero."""

    shared: AdapterSource
    own: FactorsB | None
    layout: AdapterLayout

    def module(self, target: AdapterTarget, /) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) and B (out x rank); a whole tensor as it is shared."""
        if target.whole is not None:
            return self.shared.module(target)
        a = self.shared.module(target.a_alone(self.layout.rank))[1]
        if self.own is not None:
            return a, self.own.of(target)
        return a, np.zeros((target.out_features, self.layout.rank), dtype=np.float32)


def write_factors_b(path: Path, pairs: AdapterSource) -> None:
    """Keep B of every pair, mode 0600; the file is whole or absent."""
    found = {lora_b_name(target.module): pairs.module(target)[1] for target in pairs.layout.pairs}
    write_durably(path, save({name: np.ascontiguousarray(b) for name, b in found.items()}))


def open_factors_b(path: Path, layout: AdapterLayout) -> FactorsB:
    """Raises UntrustedInputError where the file is not B of this layout, and FileNotFoundError."""
    entries = {
        lora_b_name(target.module): Entry.float32(target.out_features, layout.rank)
        for target in layout.pairs
    }
    return FactorsB(path, layout, open_layout(path, entries, "own factors B"))
