"""What a field takes of a value: text, and what columns of other types plainly say.

Databases and exports have types of their own, so what has one spelling only is read: whole numbers
and decimals, dates, instants and UUIDs as ids, subjects, sources, labels and evidence of opt-outs;
0 and 1, true and false, yes and no, or their first letters, as a flag; numbers written as text. A
fraction in binary, or a number where a question or an answer is expected, is refused: it has more
than one spelling, or is the wrong column.
"""

import math
import re
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from data_contracts.dataset.examples import Message
from data_contracts.dataset.forms.chat import messages_of
from data_contracts.dataset.forms.form import LineRefusedError
from data_contracts.dataset.sources.data_source import FIELD_TYPES

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("heldout", "held_out", "held-out", "holdout"), "heldout"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "dev"), "heldout"),
    **dict.fromkeys(("validation", "valid", "val"), "heldout"),
}
"""What names of splits mean, in lower case."""

_FLAGS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}
_PLAIN = frozenset(
    {"id", "subject", "source", "label", "tdm_reservation", "tdm_policy", "tdm_checked_at"}
)
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?")
_MOST_DIGITS = 40
_LARGEST_EXACT = 2**53


class ValueRefusedError(Exception):
    """Why a value does not fit its field."""


class NotText:
    """Stands for a value that a reader did not convert, because no field takes its type."""


NOT_TEXT = NotText()


def converter_of(field: str) -> Callable[[Any], Any]:
    """What makes the value of `field`, raising ValueRefusedError; None is for the caller."""
    if field == "split":
        return _split
    if field == "messages":
        return _messages
    if FIELD_TYPES[field] == "boolean":
        return _flag
    if FIELD_TYPES[field] == "number":
        return _number
    return _TEXTS.get(field, _plain if field in _PLAIN else text_of)


def takes_text_only(field: str) -> bool:
    """Whether a column of numbers, dates or booleans can only be the wrong one for `field`."""
    return FIELD_TYPES[field] in ("string", "array") and field not in _PLAIN


def text_of(value: Any) -> str:
    """Text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise ValueRefusedError("is not text")
    if "\0" in value:
        raise ValueRefusedError("holds a NUL character")
    if not value.isascii() and not _is_encodable(value):
        raise ValueRefusedError("holds half a surrogate pair")
    return value


def _messages(value: Any) -> tuple[Message, ...]:
    try:
        messages = messages_of(value)
    except LineRefusedError as refused:
        raise ValueRefusedError(str(refused)) from None
    for message in messages:
        text_of(message.content)
    return messages


def _is_encodable(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, date | UUID):
        return value.isoformat() if isinstance(value, date) else str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_EXACT:
        value = int(value)  # a column of whole numbers of which one is absent
    if isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(value) if abs(value) < 10**_MOST_DIGITS else value
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) < _MOST_DIGITS:
        return _decimal(value)
    raise ValueRefusedError("is not text")


def _decimal(value: Decimal) -> str:
    """Without an exponent, and without zeros behind the point: 17 is 17.00."""
    shown = format(value, "f")
    shown = shown.rstrip("0").rstrip(".") if "." in shown else shown
    return "0" if shown == "-0" else shown


def _label(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else _plain(value)


def _reservation(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else _plain(value)


def _read_at(value: Any) -> str:
    """A midnight without an offset is a date that had to be a timestamp."""
    if isinstance(value, datetime) and value.tzinfo is None and value.time() == time():
        return value.date().isoformat()
    return _plain(value)


_TEXTS: dict[str, Callable[[Any], str]] = {
    "label": _label,
    "tdm_reservation": _reservation,
    "tdm_checked_at": _read_at,
}


def _split(value: Any) -> str:
    split = SPLITS.get(text_of(value).strip().lower())
    if split is None:
        raise ValueRefusedError("is neither train nor heldout")
    return split


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal) and value in (0, 1):
        return bool(value)
    known = _FLAGS.get(value.strip().lower()) if isinstance(value, str) else None
    if known is None:
        raise ValueRefusedError("is not true or false")
    return known


def _number(value: Any) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueRefusedError("is not a number")
    try:
        number = float(value)
    except (OverflowError, ValueError):
        number = math.inf
    if not math.isfinite(number):
        raise ValueRefusedError("is not a finite number")
    return number
