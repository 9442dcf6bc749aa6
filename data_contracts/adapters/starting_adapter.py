"""What a silo starts a round from: the published adapter, or the one that the plan's seed draws.

Every silo of a cohort and the coordinator have to know the same starting adapter, so the draw
depends on neither rank of a process, device, ZeRO stage, library version of PyTorch nor the order
of modules: each module has a generator of its own (numpy PCG64) seeded from (seed, module name). A
silo with a layout of its own starts from the leading rows and columns of the global adapter, which
under the default rule are its strongest directions, and trains beside the rest of it.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_contracts.adapters.adapter_format import lora_a_name, lora_b_name
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

Float32Array = npt.NDArray[np.float32]


class AdapterSource(Protocol):
    """Where the factors of an adapter come from, one module at a time."""

    @property
    def layout(self) -> AdapterLayout:
        """The layout: rank, scaling and modules."""
        ...

    def module(self, target: AdapterTarget, /) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) and B (out x rank) of one module of the layout."""
        ...


@dataclass(frozen=True)
class InitialAdapter:
    """The adapter that round 1 starts from: A from the seed, B zero."""

    layout: AdapterLayout

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) drawn and B (out x rank) zero."""
        zeros = np.zeros((target.out_features, self.layout.rank), dtype=np.float32)
        return initial_a(self.layout, target), zeros


@dataclass(frozen=True)
class NarrowedAdapter:
    """The leading rows of A and columns of B of a wider adapter, as `layout`.

    B is rescaled by the ratio of the scalings, so that scaling * B @ A stays the same product.
    """

    wide: AdapterSource
    layout: AdapterLayout

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) and B (out x rank) of one module that the silo trains."""
        a, b = self.wide.module(target)
        ratio = np.float32(self.wide.layout.scaling / self.layout.scaling)
        rank = self.layout.rank
        return np.ascontiguousarray(a[:rank]), np.ascontiguousarray(b[:, :rank] * ratio)


@dataclass(frozen=True)
class RestOfAdapter:
    """What `narrow` leaves out of a wider adapter, in the wider layout: the two add up to it.

    B is zero at the ranks that the narrower layout has in its own modules.
    """

    wide: AdapterSource
    narrow: AdapterLayout

    @property
    def layout(self) -> AdapterLayout:
        """That of the wider adapter."""
        return self.wide.layout

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) and B (out x rank), the wider layout's rank."""
        a, b = self.wide.module(target)
        if target in self.narrow.targets:
            b = b.copy()
            b[:, : self.narrow.rank] = 0
        return a, b


def narrowed(source: AdapterSource, layout: AdapterLayout) -> AdapterSource:
    """`source` in `layout`, which is its own or a part of it."""
    return source if source.layout == layout else NarrowedAdapter(source, layout)


def initial_a(layout: AdapterLayout, target: AdapterTarget) -> Float32Array:
    """A of one module, rank x in_features: uniform within 1/sqrt(in_features).

    That is Kaiming uniform with a = sqrt(5), PEFT's default for A (He et al. 2015).
    """
    name_words = np.frombuffer(hashlib.sha256(target.module.encode()).digest(), dtype="<u4")
    seed_words = [layout.seed & 0xFFFFFFFF, layout.seed >> 32]
    generator = np.random.Generator(np.random.PCG64([*seed_words, *name_words.tolist()]))
    bound = 1.0 / np.sqrt(target.in_features)
    drawn = generator.random((layout.rank, target.in_features), dtype=np.float32)
    return ((drawn * 2 - 1) * np.float32(bound)).astype(np.float32)


def tensors_of(source: AdapterSource) -> dict[str, Float32Array]:
    """Every tensor of an adapter under its name, all in memory."""
    tensors: dict[str, Float32Array] = {}
    for target in source.layout.targets:
        a, b = source.module(target)
        tensors[lora_a_name(target.module)] = a
        tensors[lora_b_name(target.module)] = b
    return tensors
