"""Numbers at the end of a payload that are no entries of an adapter, each in a range of its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np

from data_contracts.masking.fixed_point import FixedPoint, Float64Array
from data_contracts.masking.pieces import require_finite, unfit_plan

SQUARED_NORM = "squared norm"
"""Of the whole change: the one that the step of FedExP needs."""


@dataclass(frozen=True)
class ExtraNumber:
    """One number more, averaged as the others are, within +-`largest`.

    `degree`: of a change that is shortened to a part of itself it is that part to this power.
    """

    name: str
    largest: Decimal
    degree: int = 0


def require_clear(extras: Sequence[ExtraNumber]) -> None:
    """Raise FederationOperatorError for two of one name, or one without a range."""
    names = {extra.name for extra in extras}
    if len(names) != len(extras) or any(not extra.largest > 0 for extra in extras):
        raise unfit_plan("extra numbers with names of their own and a range", "others")


def scaled_values(
    extras: Sequence[ExtraNumber],
    values: Mapping[str, float],
    fixed_point: FixedPoint,
    kept: float,
) -> Iterator[Float64Array]:
    """One after the other, brought to the range of the entries, of a change of which `kept` stays.

    Raises SiloOperatorError for a number that is not finite.
    """
    if set(values) != {extra.name for extra in extras}:
        raise ValueError("expected a value for each extra number of the payload")
    for extra in extras:
        value = values[extra.name] * kept**extra.degree
        value *= float(Fraction(fixed_point.largest) / Fraction(extra.largest))
        if kept != 1 and extra.degree:
            # Shortened to the very end of its range, and by the rounding of float64 beyond it.
            value = min(value, float(fixed_point.largest))
        scaled = np.array([value])
        require_finite(scaled, f"extra number {extra.name}")
        yield scaled


def extra_values(
    extras: Sequence[ExtraNumber], fixed_point: FixedPoint, means: Float64Array
) -> dict[str, float]:
    """The weighted means of the extra numbers, out of what is decoded behind the adapter's."""
    return {
        extra.name: float(mean) * float(Fraction(extra.largest) / Fraction(fixed_point.largest))
        for extra, mean in zip(extras, means, strict=False)
    }
