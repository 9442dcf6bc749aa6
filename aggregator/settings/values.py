"""Values of settings: within what a plan can say, so that loading refuses what planning would."""

from decimal import Decimal, DecimalException
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from data_contracts.limits import MAX_COUNT, MAX_ROUND
from data_contracts.protocol.records.round_plan import MAX_COHORT
from data_contracts.protocol.wire_types import DecimalString, Line

_MAX_MAGNITUDE = 20


def _as_decimal(value: Any) -> Any:
    """A number as TOML or a person writes it, with an exponent or not; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return value
    try:
        number = Decimal(str(value))
    except DecimalException:
        return value
    # Digits are written out, and an exponent of nine figures would fill the memory with them.
    if abs(number.adjusted()) > _MAX_MAGNITUDE:
        raise ValueError("expected a number of usual size, such as 0.002")
    return number


Number = Annotated[DecimalString, BeforeValidator(_as_decimal)]
"""Exact, with at most 20 decimals."""
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Minutes = Annotated[float, Field(ge=0.05, le=1_000_000, allow_inf_nan=False)]
"""A few of the whole seconds that records count in, to two years."""
Rank = Annotated[int, Field(ge=1, le=1024)]
Alpha = Annotated[int, Field(ge=1, le=4096)]
Modules = Annotated[tuple[Line, ...], Field(min_length=1)]
Quorum = Annotated[int, Field(ge=1, le=MAX_COHORT)]
Seed = Annotated[int, Field(ge=0, le=MAX_COUNT - MAX_ROUND)]
"""The number of the round is added to it."""
