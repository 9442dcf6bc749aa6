"""Quality rules that a contract may state: an allow-list, because a rule is a question.

Whoever writes a contract can ask the data about one person if rows may be chosen, SQL be run or a
pattern be matched. So a rule is one of the types below, on one of the columns below, with the
arguments below and no other; nothing here selects rows.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from data_contracts.wire_types import Part, RuleId

MAX_SET_VALUES = 100

Severity = Literal["critical", "warning"]
Scalar = str | int | float | bool

_FLAG_COLUMNS = frozenset({"licence_allowed", "is_empty", "is_duplicate", "readable"})
_LENGTH_COLUMNS = frozenset({"prompt_characters", "answer_characters"})
_TEXT_COLUMNS = frozenset({"licence", "split"})
_KEYED_COLUMNS = frozenset({"subject_id", "text_digest"})
_NOT_KEYED = _FLAG_COLUMNS | _LENGTH_COLUMNS | _TEXT_COLUMNS


class QualityRule(Part):
    """One rule, ready for `expectations`; a bound that is None does not bind.

    `mostly` is the share (0 to 1) of the values that must comply.
    """

    rule: RuleId
    type: RuleId
    severity: Severity = "critical"
    column: str | None = None
    min_value: int | None = None
    max_value: int | None = None
    value_set: tuple[Scalar, ...] | None = None
    mostly: float = Field(default=1.0, ge=0, le=1)


class KeyRefusedError(Exception):
    """A key of a contract that is refused; `path` is relative to what was being read."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(f"{path}: expected {expected}; found {found}")
        self.path = path
        self.expected = expected
        self.found = found


@dataclass(frozen=True)
class AllowedType:
    """Columns and arguments that one expectation type may be given."""

    columns: frozenset[str]
    required: frozenset[str]
    optional: frozenset[str] = frozenset()


ALLOWED_TYPES: dict[str, AllowedType] = {
    "expect_table_row_count_to_be_between": AllowedType(
        frozenset(), frozenset(), frozenset({"min_value", "max_value"})
    ),
    "expect_column_values_to_be_between": AllowedType(
        _LENGTH_COLUMNS, frozenset({"column"}), frozenset({"min_value", "max_value", "mostly"})
    ),
    "expect_column_values_to_be_in_set": AllowedType(
        _FLAG_COLUMNS | _TEXT_COLUMNS, frozenset({"column", "value_set"}), frozenset({"mostly"})
    ),
    "expect_column_values_to_not_be_null": AllowedType(
        _NOT_KEYED | _KEYED_COLUMNS, frozenset({"column"}), frozenset({"mostly"})
    ),
    "expect_column_unique_value_count_to_be_between": AllowedType(
        _KEYED_COLUMNS, frozenset({"column"}), frozenset({"min_value", "max_value"})
    ),
}


def checked_rule(rule: str, severity: Severity, implementation: Any) -> QualityRule:
    """The rule of `implementation` ({type, kwargs}), or KeyRefusedError with the key's path."""
    if not isinstance(implementation, dict):
        raise KeyRefusedError("implementation", "an object of type and kwargs", "something else")
    _only({"type", "kwargs"}, implementation, "implementation")
    kind, kwargs = implementation.get("type"), implementation.get("kwargs", {})
    allowed = ALLOWED_TYPES.get(kind) if isinstance(kind, str) else None
    if allowed is None or not isinstance(kind, str):
        expected = "one of " + ", ".join(ALLOWED_TYPES)
        raise KeyRefusedError("implementation.type", expected, ascii(kind)[:80])
    if not isinstance(kwargs, dict):
        raise KeyRefusedError("implementation.kwargs", "an object", "something else")
    _only(allowed.required | allowed.optional, kwargs, "implementation.kwargs")
    for name in sorted(allowed.required - set(kwargs)):
        raise KeyRefusedError(f"implementation.kwargs.{name}", "a value", "nothing")
    arguments = {name: _argument(name, value, allowed) for name, value in kwargs.items()}
    _check_bounds(allowed, arguments)
    _check_set(arguments)
    return QualityRule(rule=rule, type=kind, severity=severity, **arguments)


def _argument(name: str, value: Any, allowed: AllowedType) -> Any:
    path = f"implementation.kwargs.{name}"
    if name == "column":
        if value not in allowed.columns:
            expected = "one of " + ", ".join(sorted(allowed.columns))
            raise KeyRefusedError(path, expected, ascii(value)[:80])
        return value
    if name == "value_set":
        return _value_set(path, value)
    if name == "mostly":
        return _share(path, value)
    if type(value) is not int or not 0 <= value < 2**53:
        raise KeyRefusedError(path, "a whole number from 0", ascii(value)[:80])
    return value


def _value_set(path: str, value: Any) -> tuple[Scalar, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_SET_VALUES:
        raise KeyRefusedError(path, f"a list of 1 to {MAX_SET_VALUES} values", "something else")
    for position, member in enumerate(value):
        if not isinstance(member, str | bool):
            raise KeyRefusedError(f"{path}[{position}]", "text, true or false", ascii(member)[:80])
    return tuple(value)


def _share(path: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise KeyRefusedError(path, "a share from 0 to 1", ascii(value)[:80])
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise KeyRefusedError(path, "a share from 0 to 1", f"{value}")
    return float(value)


def _check_bounds(allowed: AllowedType, arguments: dict[str, Any]) -> None:
    if "min_value" not in allowed.optional:
        return
    low, high = arguments.get("min_value"), arguments.get("max_value")
    if low is None and high is None:
        raise KeyRefusedError("implementation.kwargs", "min_value or max_value", "neither")
    if low is not None and high is not None and low > high:
        raise KeyRefusedError("implementation.kwargs.min_value", f"at most {high}", f"{low}")


def _check_set(arguments: dict[str, Any]) -> None:
    """A flag is compared with true and false, text with text; anything else never matches."""
    if "value_set" not in arguments:
        return
    wanted = bool if arguments["column"] in _FLAG_COLUMNS else str
    for position, member in enumerate(arguments["value_set"]):
        if type(member) is not wanted:
            expected = "true or false" if wanted is bool else "text"
            path = f"implementation.kwargs.value_set[{position}]"
            raise KeyRefusedError(path, expected, ascii(member)[:80])


def _only(known: set[str] | frozenset[str], found: dict[str, Any], path: str) -> None:
    for name in found:
        if name not in known:
            expected = "only " + ", ".join(sorted(known))
            raise KeyRefusedError(f"{path}.{name}", expected, "an unknown key")
