"""What one silo does to every number of its payload: cut, round, and cover with pads."""

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from data_contracts.masking.fixed_point import FixedPoint, Float64Array
from data_contracts.masking.mask_group import MaskGroup
from data_contracts.masking.pads import Pad, UInt32Array, add_pads, keystream, pads_of
from data_contracts.masking.pieces import MaskedNumbers
from data_contracts.masking.silo_secrets import SiloSecrets


@dataclass(frozen=True)
class MaskTerms:
    """How a silo's numbers become whole ones: the round's fixed point, the silo's `factor` (its
    weight over the greatest of the round), and what the norm of its difference is cut to."""

    fixed_point: FixedPoint
    factor: Fraction
    largest_norm: Decimal | None = None

    def kept(self, norm: float) -> float:
        """What differences of this norm are multiplied with so that it is within bounds."""
        largest = float("inf") if self.largest_norm is None else float(self.largest_norm)
        return 1.0 if norm <= largest else largest / norm


@dataclass(frozen=True)
class SiloMask:
    """Made by `OwnPlace.mask`. Pieces go in any order.

    The bits that decide how numbers are rounded are a keystream too: they are the silo's alone, the
    same in a retry, on every machine and for any order of the pieces.
    """

    terms: MaskTerms
    entries: int
    rounding_key: bytes = field(repr=False)
    pads: tuple[Pad, ...] = field(repr=False)

    def masked(self, first: int, values: Float64Array) -> tuple[UInt32Array, int]:
        """Entries `first` and on of the masked payload, and how many were cut to the range.

        `values` are used up. The same secrets must never mask other values; see `silo_secrets`.
        """
        bits = keystream(self.rounding_key, first, len(values))
        entries, clipped = self.terms.fixed_point.encode(values, self.terms.factor, bits)
        if first + len(entries) == self.entries:
            entries[-1] = 1
        add_pads(entries, first, self.pads)
        return entries, clipped


@dataclass(frozen=True)
class OwnPlace:
    """A silo in its group: who it is, its secrets, and who shared seeds out, itself included."""

    silo: str
    secrets: SiloSecrets
    group: MaskGroup
    sharing: tuple[str, ...]

    def mask(self, terms: MaskTerms, payload: MaskedNumbers) -> SiloMask:
        """Raises ValueError where the silo did not share its own seeds out."""
        if self.silo not in self.sharing:
            raise ValueError(f"expected {self.silo} among those who shared their seeds out")
        pads = pads_of(self.secrets, self.group, self.silo, self.sharing)
        rounding_key = self.secrets.rounding_key(self.group.binding, self.silo)
        return SiloMask(terms, payload.entries, rounding_key, pads)
