"""What a silo starts a round from: the published adapter, or the one that the plan's seed draws.

Every silo of a cohort and the coordinator have to know the same starting adapter, so the draw
depends on neither rank of a process, device, ZeRO stage, library version of PyTorch nor the order
of modules: each module has a generator of its own (numpy PCG64) seeded from (seed, module name). A
silo with a layout of its own starts from the leading rows and columns of the global adapter, which
under the default rule are its strongest directions, and trains beside the rest of it. Tensors that
are trained whole it has whole: nothing of them is left for the rest.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from data_contracts.adapters.adapter_format import named_tensors
from data_contracts.adapters.whole_tensors import (
    drawn_a,
    generator_of,
    identity,
    initial_whole,
)
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

Float32Array = npt.NDArray[np.float32]


class AdapterSource(Protocol):
    """Where the factors of an adapter come from, one module at a time."""

    @property
    def layout(self) -> AdapterLayout:
        """The layout: rank, scaling and modules."""
        ...

    def module(self, target: AdapterTarget, /) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) and B (out x rank) of one module of the layout.

        Of a tensor that is trained whole A is the identity, and B (out x in) the tensor.
        """
        ...


@dataclass(frozen=True)
class InitialAdapter:
    """The adapter that round 1 starts from: A from the seed, B zero; whole tensors as they say."""

    layout: AdapterLayout

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) drawn and B (out x rank) zero."""
        if target.whole is not None:
            return identity(target.in_features), initial_whole(self.layout, target)
        zeros = np.zeros((target.out_features, self.layout.rank), dtype=np.float32)
        return initial_a(self.layout, target), zeros


@dataclass(frozen=True)
class NarrowedAdapter:
    """The leading rows of A and columns of B of a wider adapter, as `layout`.

    B is rescaled by the ratio of the scalings, so that scaling * B @ A stays the same product. What
    is trained whole stays whole.
    """

    wide: AdapterSource
    layout: AdapterLayout

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) and B (out x rank) of one module that the silo trains."""
        a, b = self.wide.module(target)
        if target.whole is not None:
            return a, b
        ratio = np.float32(self.wide.layout.scaling / self.layout.scaling)
        rank = self.layout.rank
        return np.ascontiguousarray(a[:rank]), np.ascontiguousarray(b[:, :rank] * ratio)


@dataclass(frozen=True)
class RestOfAdapter:
    """What `narrow` leaves out of a wider adapter, in the wider layout: the two add up to it.

    B is zero at the ranks that the narrower layout has in its own modules. The silo trains every
    whole tensor, so the rest has none: a tensor of zeros would say the same, and whoever put it
    into a model as it is would have no head.
    """

    wide: AdapterSource
    narrow: AdapterLayout

    @property
    def layout(self) -> AdapterLayout:
        """That of the wider adapter, but for its whole tensors."""
        return self.wide.layout.without_wholes

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
    """A of one module, rank x in_features, as `drawn_a` draws it."""
    generator = generator_of(layout, target.module)
    drawn = drawn_a(generator, target.in_features, layout.rank * target.in_features)
    return drawn.reshape(layout.rank, target.in_features)


def tensors_of(source: AdapterSource) -> dict[str, Float32Array]:
    """Every tensor of an adapter under its name, all in memory."""
    tensors: dict[str, Float32Array] = {}
    for target in source.layout.targets:
        tensors |= named_tensors(target, *source.module(target))
    return tensors
