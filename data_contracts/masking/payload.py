"""Which numbers are masked: what a silo changed of an adapter, in the order of its layout.

Of each pair the factors that the round trains, of each tensor that is trained whole all of it, as
differences to what the round started from; then a few extra numbers; last an entry that is 1 at
every silo, whose sum says whether every pad is gone. What a round does not train is in no payload,
and has to be as it was handed out. Differences are formed in float64, in which the
difference of two float32 numbers of like size is exact, and one tensor after the other.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data_contracts.adapters.adapter_format import expected_shapes_of
from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.adapters.whole_tensors import stored
from data_contracts.masking.extra_numbers import ExtraNumber, require_clear, scaled_values
from data_contracts.masking.fixed_point import FixedPoint, Float64Array
from data_contracts.masking.pieces import difference, in_pieces, require_short, unfit_adapter
from data_contracts.masking.product_norm import squared_change, squared_core_change
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.training_recipe import TrainedFactors


@dataclass(frozen=True)
class Payload:
    """What is masked of an adapter of `layout`, the plan's submitted one, when `trained` moves."""

    layout: AdapterLayout
    trained: TrainedFactors
    extras: tuple[ExtraNumber, ...] = ()

    def __post_init__(self) -> None:
        """Raises FederationOperatorError for more entries than a pad has, or unclear extras."""
        require_clear(self.extras)
        require_short(self.entries)

    @cached_property
    def tensor_entries(self) -> int:
        """Numbers of the adapter."""
        return sum(
            math.prod(shape)
            for target in self.layout.targets
            for (_, shape), is_in in zip(
                expected_shapes_of(self.layout.rank, target), self.masked(target), strict=True
            )
            if is_in
        )

    @property
    def entries(self) -> int:
        """All numbers, the one at the end included."""
        return self.tensor_entries + len(self.extras) + 1

    def masked(self, target: AdapterTarget) -> tuple[bool, ...]:
        """For each tensor that a file has of `target`, in its order, whether it is masked."""
        if target.whole is not None:
            return (True,)
        return self.trained != "b", self.trained != "a"


@dataclass(frozen=True)
class Change:
    """What a silo trained and what it started from, both in the layout of `payload`; and the values
    of the payload's extra numbers by name."""

    payload: Payload
    local: AdapterSource
    starting: AdapterSource
    extras: Mapping[str, float]

    def norm(self) -> float:
        """L2 norm of all differences, without the extra numbers: one pass over both adapters.

        Raises SiloOperatorError as `pieces`.
        """
        return math.sqrt(sum(float(np.vdot(part, part)) for part in self._differences()))

    def pieces(
        self, fixed_point: FixedPoint, kept: float = 1.0
    ) -> Iterator[tuple[int, Float64Array]]:
        """Every number times `kept`, an extra one by its degree, and where each piece begins.

        See `pieces.MaskedChange`. Extra numbers come scaled to the range of
        the others; in place of the last entry, which is no number of that range, comes 0. Raises
        SiloOperatorError for a number that is not finite, and where the local adapter moved what
        the round does not train.
        """
        return in_pieces(self._parts(fixed_point, kept))

    def _parts(self, fixed_point: FixedPoint, kept: float) -> Iterator[Float64Array]:
        for part in self._differences():
            if kept != 1:
                part *= kept
            yield part
        yield from scaled_values(self.payload.extras, self.extras, fixed_point, kept)
        yield np.zeros(1)

    def _differences(self) -> Iterator[Float64Array]:
        for target in self.payload.layout.targets:
            own, start = (s.module(target) for s in (self.local, self.starting))
            tensors = zip(stored(target, *own), stored(target, *start), strict=True)
            for is_in, (local, starting) in zip(self.payload.masked(target), tensors, strict=True):
                if is_in:
                    yield from difference(target, local, starting)
                elif not np.array_equal(local, starting):
                    frozen = "a factor that the recipe left frozen"
                    raise unfit_adapter(target.module, frozen, "one that moved")


@dataclass(frozen=True)
class CoreChange(Change):
    """A change of cores that is as long as the products between the bases of `pairs` move.

    `pairs` is the adapter that the round started from, of which `starting` is the cores' part.
    """

    pairs: AdapterSource

    def norm(self) -> float:
        """Frobenius norm of all products' changes and of those of whole tensors."""
        return math.sqrt(sum(map(self._squared, self.pairs.layout.targets)))

    def _squared(self, target: AdapterTarget) -> float:
        if target.whole is not None:
            return squared_change(target, self.local, self.starting)
        return squared_core_change(target, self.local, self.pairs)
