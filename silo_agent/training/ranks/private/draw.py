"""Which units a step draws, and what of each goes through the model.

Every unit is drawn by itself, with the same probability, whatever else is drawn (Poisson sampling),
so a step may draw none. Units are those of the records: also one of which nothing can be trained on
is drawn, and adds nothing. Of the records of a unit that is drawn some are chosen, and of a record
that is told in several pieces one piece: what a unit costs is bounded, whatever it holds.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_contracts.errors import SiloOperatorError
from silo_agent.training.private_part import PrivatePart
from silo_agent.training.ranks.private.secret_numbers import SecretNumbers
from silo_agent.training.ranks.token_shard import Places, TokenShard

UNIT = np.dtype("<u4")


@dataclass(frozen=True)
class DrawnUnit:
    """The places in the shard of what is chosen of a unit, one for each of its records, how many
    tokens each has, and for each a number of 64 bits, from which follows what else is drawn."""

    unit: int
    places: tuple[int, ...]
    sizes: tuple[int, ...]
    seeds: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """All together."""
        return sum(self.sizes)


class Population:
    """The units of a shard's records; conversations are cut to `room` tokens."""

    def __init__(self, shard: TokenShard, room: int, private: PrivatePart) -> None:
        everything: Places = np.arange(len(shard))
        fit = shard.fit(everything, room)
        self._places = everything[fit.is_usable]
        self._sizes = fit.sizes[fit.is_usable]
        records = shard.records_of(everything)
        count = int(records[-1]) + 1 if len(records) else 0
        units = _units(private.units, count)
        self._records = records[fit.is_usable]
        self._units = units[self._records]
        self._private = private
        self.record_count, self.unit_count = count, int(units.max()) + 1 if count else 0

    def is_drawn(self, numbers: SecretNumbers, step: int) -> NDArray[np.bool_]:
        """For every unit."""
        rate = Fraction(self._private.sampling_rate)
        limit = rate.numerator * 2**64 // rate.denominator
        if limit == 2**64:
            return np.ones(self.unit_count, np.bool_)
        return numbers.words("units", step, self.unit_count) < np.uint64(limit)

    def drawn(self, numbers: SecretNumbers, step: int) -> list[DrawnUnit]:
        """Those of a step with something to be trained on, in the order of their numbers."""
        own = np.flatnonzero(self.is_drawn(numbers, step)[self._units])
        if not len(own):
            return []
        pieces = numbers.words("pieces", step, len(self._units))[own]
        own = own[_firsts(self._records[own], pieces, 1)]
        order = numbers.words("records", step, self.record_count)[self._records[own]]
        own = own[_firsts(self._units[own], order, self._private.records_per_unit)]
        seeds = numbers.words("shown", step, self.record_count)[self._records[own]]
        borders = np.flatnonzero(np.diff(self._units[own])) + 1
        return [
            DrawnUnit(
                int(self._units[some[0]]),
                tuple(self._places[some].tolist()),
                tuple(self._sizes[some].tolist()),
                tuple(of_some.tolist()),
            )
            for some, of_some in zip(np.split(own, borders), np.split(seeds, borders), strict=True)
        ]


def _firsts(groups: Places, order: NDArray[np.uint64], count: int) -> Places:
    """Of each group the places of the first `count` in an order; groups come by their number."""
    sorted_ = np.lexsort((order, groups))
    ordered = groups[sorted_]
    begins = np.searchsorted(ordered, ordered, side="left")
    chosen: Places = sorted_[np.arange(len(groups)) - begins < count]
    return chosen


def _units(path: Path | None, records: int) -> Places:
    """The unit of each record."""
    if path is None:
        return np.arange(records)
    try:
        found = np.fromfile(path, UNIT).astype(np.int64)
    except OSError as error:
        raise _no_units(path, records, error.strerror or type(error).__name__) from error
    if len(found) != records or path.stat().st_size != records * UNIT.itemsize:
        raise _no_units(path, records, f"{path.stat().st_size} bytes")
    return found


def _no_units(path: Path, records: int, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"units of the training records, {path}",
        expected=f"the unit of each of {records} records, four bytes each",
        found=found,
        action="remove the directory of the splits and start the agent again, which writes it anew",
    )
