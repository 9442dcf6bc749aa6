"""The value types that records are made of.

A payload is RFC 8785 JSON of strings, integers, booleans, lists and objects. Decimals
travel as strings so that two JSON libraries can never disagree about a float; instants travel as
UTC strings with whole seconds.
"""

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)

from data_contracts.limits import MAX_COUNT, MAX_ROUND
from data_contracts.protocol.public_keys import key_fault
from data_contracts.protocol.recipients import RECIPIENT_PATTERN, recipient_fault
from data_contracts.shown_text import is_visible

INSTANT_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_INSTANT = re.compile(r"2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,20})?")

NAME_PATTERN = r"[a-z][a-z0-9-]{0,22}[a-z0-9]"
"""Ids of federations, silos and runs: short enough that three of them fit a bucket name."""

Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
RunId = Name
COORDINATOR = "coordinator"
RuleId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.-]{0,79}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=400)]
VersionId = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$")]
"""A version of an object in storage, as the storage names it."""


SignedText = Annotated[str, StringConstraints(max_length=16_384, pattern=r"^[A-Za-z0-9+/]+={0,2}$")]
"""A signed envelope inside another record, in base64."""
RelayedText = Annotated[
    str, StringConstraints(max_length=65_536, pattern=r"^[A-Za-z0-9+/]+={0,2}$")
]
"""As `SignedText`, of a record whose size grows with the number of silos."""
PublicX25519Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
SealedHex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{120}$")]
"""The 60 bytes of a box of shares that one silo has sealed for another, in hex."""
ProgramVersion = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}[a-z0-9.+-]{0,20}$")
]
"""The release that wrote a record, as its package says it."""
LicenceId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.+-]{1,80}$")]
HubId = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"),
]
"""A repository on a model hub, organisation/name; never a path on somebody's disk."""
HubCommit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
"""A commit of such a repository: branches and tags move."""
ModuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+){0,15}$")]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
PositiveCount = Annotated[int, Field(ge=1, le=MAX_COUNT)]
RoundNumber = Annotated[int, Field(ge=1, le=MAX_ROUND)]
AttemptNumber = Annotated[int, Field(ge=1, le=99)]


def _no_inbox(federation: str) -> str:
    """The rule of `protocol.bucket_layout`, by which no two share the name of a bucket."""
    if "-inbox-" in f"{federation}-":
        raise ValueError("expected the id of a federation without -inbox in it")
    return federation


def _no_role(silo: str) -> str:
    """Commands and archives name the coordinator where they name a silo."""
    if silo == COORDINATOR:
        raise ValueError("expected the id of a silo, found the name of the coordinator")
    return silo


def _one_line(text: str) -> str:
    """What people compare by eye, and programs line by line without the spaces around it."""
    if not is_visible(text) or text != text.strip():
        raise ValueError("expected one line of visible text without spaces around it")
    return text


def _decimal_from_wire(value: Any) -> Any:
    """Accept a decimal string or a Decimal; a JSON number is refused, as is NaN or an exponent."""
    text = format(value, "f") if isinstance(value, Decimal) else value
    if isinstance(text, str) and _DECIMAL.fullmatch(text):
        return Decimal(text)
    raise ValueError("expected a decimal written as a string without an exponent, such as '0.002'")


def _usable_key(public_key_hex: str) -> str:
    """Keys are pinned as bytes, so one of small order or in a second spelling is refused."""
    fault = key_fault(public_key_hex)
    if fault is not None:
        raise ValueError(f"expected an Ed25519 public key, found {fault}")
    return public_key_hex


def _usable_recipient(recipient: str) -> str:
    fault = recipient_fault(recipient)
    if fault is not None:
        raise ValueError(f"expected an age X25519 recipient, found {fault}")
    return recipient


def _instant_from_wire(value: Any) -> Any:
    """Whole seconds of UTC, so that what is sealed equals what is read back; naive is refused."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(microsecond=0)
    if isinstance(value, str) and _INSTANT.fullmatch(value):
        return datetime.strptime(value, INSTANT_FORMAT).replace(tzinfo=UTC)
    raise ValueError("expected a UTC instant such as 2026-11-23T05:00:00Z")


def _is_a_day(text: str) -> str:
    date.fromisoformat(text)
    return text


Day = Annotated[
    str,
    StringConstraints(pattern=r"^2[0-9]{3}-[0-9]{2}-[0-9]{2}$"),
    AfterValidator(_is_a_day),
]
"""A date of the calendar, "2026-11-29"."""
Line = Annotated[Text, AfterValidator(_one_line)]


def _single_spaces(name: str) -> str:
    """Names are compared by eye."""
    if name != " ".join(name.split()):
        raise ValueError("expected single spaces between words")
    return name


InstitutionName = Annotated[Line, StringConstraints(max_length=100), AfterValidator(_single_spaces)]


def _is_no_path(name: str) -> str:
    """It is published with every adapter, and a path says how a machine is laid out."""
    if name.startswith(("/", "~", ".")) or "\\" in name:
        raise ValueError("expected a name for people; where the model lies belongs in path")
    return name


BaseModelName = Annotated[Line, AfterValidator(_is_no_path)]
FederationId = Annotated[Name, AfterValidator(_no_inbox)]
SiloId = Annotated[Name, AfterValidator(_no_role)]
PublicKeyHex = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{64}$"), AfterValidator(_usable_key)
]
Recipient = Annotated[
    str, StringConstraints(pattern=RECIPIENT_PATTERN), AfterValidator(_usable_recipient)
]
"""The public half of an age identity, age1...: what is encrypted to it, its holder can read."""
SealedText = Annotated[str, StringConstraints(max_length=8192, pattern=r"^[A-Za-z0-9+/]+={0,2}$")]
"""A short text that is encrypted to somebody, an age file in base64."""
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
