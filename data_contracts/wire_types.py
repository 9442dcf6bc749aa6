"""The value types that records are made of.

A payload is RFC 8785 JSON of strings, integers, booleans, lists and objects. Decimals
travel as strings so that two JSON libraries can never disagree about a float; instants travel as
UTC strings with whole seconds.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)

INSTANT_FORMAT = "%Y-%m-%dT%H:%M:%SZ"

NAME_PATTERN = r"[a-z][a-z0-9-]{0,22}[a-z0-9]"
"""Ids of federations, silos and runs: short enough that three of them fit a bucket name."""

Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
FederationId = Name
SiloId = Name
RunId = Name
RuleId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,79}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PublicKeyHex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=400)]
LicenceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.+-]{1,80}$")]
ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+){0,15}$")]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
PositiveCount = Annotated[int, Field(ge=1, le=2**53 - 1)]
RoundNumber = Annotated[int, Field(ge=1, le=9999)]
AttemptNumber = Annotated[int, Field(ge=1, le=99)]


def _decimal_from_wire(value: Any) -> Any:
    """Accept a decimal string or a Decimal; a JSON number is refused, as is NaN or an exponent."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, str) and len(value) <= 40 and not set(value) - set("0123456789.-"):
        return Decimal(value)
    raise ValueError("expected a decimal written as a string, such as '0.002'")


def _instant_from_wire(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        return datetime.strptime(value, INSTANT_FORMAT).replace(tzinfo=UTC)
    raise ValueError("expected a UTC instant such as 2026-11-23T05:00:00Z")


DecimalString = Annotated[
    Decimal,
    Field(allow_inf_nan=False),
    BeforeValidator(_decimal_from_wire),
    PlainSerializer(lambda value: format(value, "f"), return_type=str),
]
Instant = Annotated[
    datetime,
    BeforeValidator(_instant_from_wire),
    PlainSerializer(lambda value: value.strftime(INSTANT_FORMAT), return_type=str),
]


def decimal_from_float(value: float, places: int = 6) -> Decimal:
    """`value` rounded to `places` decimals; raises ValueError when it is not finite."""
    rounded = Decimal(repr(float(value)))
    if not rounded.is_finite():
        raise ValueError(f"expected a finite number, found {value}")
    return rounded.quantize(Decimal(1).scaleb(-places))


class Part(BaseModel):
    """A value inside a record."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
