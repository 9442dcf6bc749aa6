"""The weighted mean of what silos changed, from their masked files and the seeds that were rebuilt.

Every piece is summed alone: the survivors' entries, then the pads that are still in the sum. So it
takes the memory of a few pieces for each thread, however long the payload and however many silos,
and the result is the same bits for any number of threads.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Generic, TypeVar

import numpy as np

from data_contracts.errors import FederationOperatorError, UnusableMergeError
from data_contracts.masking.fixed_point import FixedPoint, Float64Array
from data_contracts.masking.mask_group import MaskGroup
from data_contracts.masking.masked_file import MaskedFile
from data_contracts.masking.pads import PIECE_ENTRIES, Pad, UInt32Array, add_pads
from data_contracts.masking.pieces import MaskedNumbers
from data_contracts.masking.rebuilt_seeds import RebuiltSeeds, pads_left
from infra.processes.worker_threads import in_order

Numbers = TypeVar("Numbers", bound=MaskedNumbers)


@dataclass(frozen=True)
class MaskedSum(Generic[Numbers]):
    """Made by `masked_sum`. `factors` is the sum of the survivors' factors."""

    payload: Numbers
    fixed_point: FixedPoint
    files: tuple[MaskedFile, ...]
    factors: Fraction
    pads: tuple[Pad, ...] = field(repr=False)

    def plain(self, first: int) -> UInt32Array:
        """The sum of the survivors' unmasked entries of one piece, modulo 2^32."""
        count = min(PIECE_ENTRIES, self.payload.entries - first)
        total: UInt32Array = np.empty(count, dtype="<u4")
        entries: UInt32Array = np.empty(count, dtype="<u4")
        self.files[0].read_into(total, first)
        for file in self.files[1:]:
            file.read_into(entries, first)
            np.add(total, entries, out=total)
        add_pads(total, first, self.pads)
        return total

    def means(self, workers: int) -> Iterator[Float64Array]:
        """The weighted means of all entries, piece by piece and in order; the last one is none.

        Raises UnusableMergeError with the last piece where a pad is left in the sum, as it is when
        silos masked for others than those whose seeds were rebuilt.
        """
        starts = range(0, self.payload.entries, PIECE_ENTRIES)
        return in_order(self._mean, starts, workers)

    def _mean(self, first: int) -> Float64Array:
        total = self.plain(first)
        if first + len(total) == self.payload.entries and total[-1] != len(self.files):
            raise UnusableMergeError(
                "sum of masked files",
                expected="one in which no pad is left",
                found="a pad",
                action="plan the round again; ask the silos which ones they masked with",
            )
        return self.fixed_point.decode(total, self.factors)


def masked_sum(
    group: MaskGroup,
    payload: Numbers,
    fixed_point: FixedPoint,
    survivors: Mapping[MaskedFile, Fraction],
    seeds: RebuiltSeeds,
) -> MaskedSum[Numbers]:
    """The sum of the files of `survivors`, each with the silo's factor.

    Raises FederationOperatorError, before anything is read, where files and seeds are not those of
    the same silos, are fewer than the threshold or more than the fixed point is made for.
    """
    files = tuple(sorted(survivors, key=lambda file: file.silo))
    silos = tuple(file.silo for file in files)
    if silos != seeds.survivors:
        raise _unfit(f"files of {', '.join(seeds.survivors)}", ", ".join(silos) or "none")
    if not group.threshold <= len(files) <= fixed_point.silos:
        expected = f"{group.threshold} to {fixed_point.silos} files, for which the sum is protected"
        raise _unfit(f"{expected} and cannot overflow", f"{len(files)}")
    if any(file.entries != payload.entries for file in files):
        raise _unfit(f"files of {payload.entries} entries", "others")
    if not all(0 < factor <= 1 for factor in survivors.values()):
        raise _unfit("factors above 0 and of at most 1", "others")
    factors = sum(survivors.values(), Fraction(0))
    return MaskedSum(payload, fixed_point, files, factors, pads_left(group, seeds))


def _unfit(expected: str, found: str) -> FederationOperatorError:
    return FederationOperatorError(
        "masked files to sum",
        expected=expected,
        found=found,
        action="unmask again from what the close record names, or end this attempt",
    )
