"""Sources of factors that a merge makes of other sources, one module at a time."""

from dataclasses import dataclass

import numpy as np

from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget


@dataclass(frozen=True)
class PairSource:
    """One pair that is in memory, for the one module at which it is used."""

    layout: AdapterLayout
    a: Float32Array
    b: Float32Array

    def module(self, _target: AdapterTarget, /) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) and B (out x rank)."""
        return self.a, self.b


@dataclass(frozen=True)
class PaddedSource:
    """A source of lower rank in a wider layout: zeros follow, B is rescaled to the same product."""

    source: AdapterSource
    layout: AdapterLayout

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """A (rank x in) and B (out x rank)."""
        own = self.source.layout
        a, b = self.source.module(target)
        if own.scaling != self.layout.scaling:
            b = b * np.float32(own.scaling / self.layout.scaling)
        missing = self.layout.rank - own.rank
        if missing:
            a = np.pad(a, ((0, missing), (0, 0)))
            b = np.pad(b, ((0, 0), (0, missing)))
        return a, b


@dataclass(frozen=True)
class CentredSource:
    """Factors minus their means: sum of w (B_i - B)(A_i - A) is what averaging factors misses."""

    source: AdapterSource
    mean: PairSource

    @property
    def layout(self) -> AdapterLayout:
        """The layout of the source."""
        return self.source.layout

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """A - mean A and B - mean B."""
        a, b = self.source.module(target)
        return a - self.mean.a, b - self.mean.b
