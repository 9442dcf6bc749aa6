"""Numbers as whole ones of 32 bits, whose sum over all silos never overflows.

The range +-`largest` becomes +-magnitude with magnitude = floor((2^31 - 1) / silos), so the sum of
at most `silos` entries is within int32 whatever they are, and sums modulo 2^32 are the true ones.
One step of it is a quantum = largest / magnitude. A silo's numbers are cut to the range, multiplied
by its factor (its weight over the greatest weight, in (0, 1]) and rounded to one of the two nearest
steps, up with the probability of what is left over: right on average.

How exact: each entry is off by less than a quantum, and by none on average. So the weighted mean of
what was in range is off by at most quantum x silos / (sum of factors), and typically, the errors of
silos being independent, by less than half a quantum x sqrt(silos) / (sum of factors). To that comes
the rounding of float64.
"""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from data_contracts.errors import FederationOperatorError
from data_contracts.masking.mask_group import FEWEST_SILOS
from data_contracts.masking.pads import UInt32Array
from data_contracts.protocol.records.masking_terms import MOST_MASKED_SILOS

Float64Array = npt.NDArray[np.float64]

LARGEST_SUM = 2**31 - 1
BLOCK_ENTRIES = 1 << 16
"""Worked on at a time: arrays that stay in the cache, and that glibc does not give back."""


@dataclass(frozen=True)
class FixedPoint:
    """`silos`: how many are summed at most; `largest`: beyond it an entry is cut."""

    silos: int
    largest: Decimal

    def __post_init__(self) -> None:
        """Raises FederationOperatorError for another number of silos, or a range of nothing."""
        if not FEWEST_SILOS <= self.silos <= MOST_MASKED_SILOS:
            raise _unfit_plan(
                f"{FEWEST_SILOS} to {MOST_MASKED_SILOS} silos to sum", f"{self.silos}"
            )
        if not (self.largest.is_finite() and self.largest > 0):
            raise _unfit_plan("a largest change above 0", f"{self.largest}")

    @property
    def magnitude(self) -> int:
        """What `largest` becomes."""
        return LARGEST_SUM // self.silos

    @property
    def quantum(self) -> Fraction:
        """The difference between two neighbours."""
        return Fraction(self.largest) / self.magnitude

    def encode(
        self, values: Float64Array, factor: Fraction, bits: UInt32Array
    ) -> tuple[UInt32Array, int]:
        """Two's complement of each of `values`, and how many were cut to the range.

        `values` are finite and used up: their memory is worked in. `bits`: 32 random ones for each,
        which decide what is rounded up; that is right to 2^-22 of a quantum, as exact as numbers of
        this size are in float64.
        """
        if not 0 < factor <= 1:
            raise _unfit_plan("a factor above 0 and of at most 1", f"{float(factor):g}")
        out: UInt32Array = np.empty(len(values), dtype="<u4")
        clipped, scale = 0, float(factor / self.quantum)
        steps = out.view("<i4")
        for at in range(0, len(values), BLOCK_ENTRIES):
            part = slice(at, at + BLOCK_ENTRIES)
            farthest, outside = self._cut(values[part])
            self._round(values[part], scale, bits[part])
            # A factor of 1 at the very end of the range may have been rounded beyond it.
            if farthest * scale > self.magnitude - 1:
                np.clip(values[part], -self.magnitude, self.magnitude, out=values[part])
            steps[part] = values[part]
            clipped += outside
        return out, clipped

    def decode(self, total: UInt32Array, factors: Fraction) -> Float64Array:
        """The weighted mean from the sum of all entries and the sum of all factors."""
        scale = float(self.quantum / factors)
        mean: Float64Array = np.multiply(total.view("<i4"), scale, dtype=np.float64)
        return mean

    def _cut(self, values: Float64Array) -> tuple[float, int]:
        """How far from 0 the farthest is then, and how many were farther than `largest`."""
        largest, farthest = float(self.largest), max(float(values.max()), -float(values.min()))
        if farthest <= largest:
            return farthest, 0
        outside = int((np.abs(values) > largest).sum())
        np.clip(values, -largest, largest, out=values)
        return largest, outside

    def _round(self, values: Float64Array, scale: float, bits: UInt32Array) -> None:
        """The floor of each number and something random in [0, 1): up as often as it should be."""
        values *= scale
        values += np.multiply(bits, 2.0**-32, dtype=np.float64)
        np.floor(values, out=values)


def _unfit_plan(expected: str, found: str) -> FederationOperatorError:
    return FederationOperatorError(
        "fixed point of a confidential round",
        expected=expected,
        found=found,
        action="plan the round with other silos, weights or another largest change",
    )
