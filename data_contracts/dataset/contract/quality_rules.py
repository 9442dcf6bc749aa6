"""Quality rules that a contract may state: an allow-list, because a rule is a question.

Whoever writes a contract can ask the data about one person if rows may be chosen, SQL be run or a
pattern be matched. So a rule is one of the types below, on one of the columns below, with the
arguments below and no other; nothing here selects rows.

Nor may a series of rules narrow a count down to one record (the tracker of Denning, Denning and
Schwartz, 1979): there are at most MAX_RULES rules, at most one for each type and column, bounds
are multiples of COARSE and at least that far apart, and `mostly` has two decimals.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from data_contracts.dataset.contract.refused_key import KeyRefusedError
from data_contracts.protocol.wire_types import Part, RuleId

MAX_SET_VALUES = 100
MAX_RULES = 30
COARSE = 10
"""Counts and lengths can only be compared with multiples of this; see `small_cells.SMALL_CELL`."""

Severity = Literal["critical", "warning"]
Scalar = str | int | float | bool

_SEVERITIES: dict[str, Severity] = {
    "critical": "critical",
    "error": "critical",
    "warning": "warning",
    "info": "warning",
}
_ABOUT_THE_SET = frozenset(
    {"expect_table_row_count_to_be_between", "expect_column_unique_value_count_to_be_between"}
)
_FLAG_COLUMNS = frozenset(
    {
        "readable",
        "licence_allowed",
        "licence_agrees",
        "is_empty",
        "has_control_tokens",
        "is_duplicate",
        "is_near_duplicate",
        "leaks",
        "opted_out",
        "opt_out_evidence",
        "copyright_hit",
        "has_personal_data",
        "consent",
        "synthetic",
    }
)
PROMPT_LENGTH = "prompt_characters"
_LENGTH_COLUMNS = frozenset({PROMPT_LENGTH, "answer_characters"})
_TEXT_COLUMNS = frozenset({"licence", "split", "language"})
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

    @property
    def limits(self) -> dict[str, int | None]:
        """As `verdict.RuleOutcome` states them: of one number about the set, or of how many records
        may break the rule."""
        if self.type in _ABOUT_THE_SET:
            return {"at_least": self.min_value, "at_most": self.max_value}
        return {"tolerated_per_mille": round((1 - self.mostly) * 1000)}


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


def read_rules(quality: list[dict[str, Any]]) -> tuple[QualityRule, ...]:
    """The rules of an ODCS `quality` list; raises KeyRefusedError with the key's path."""
    if len(quality) > MAX_RULES:
        raise KeyRefusedError("schema[0].quality", f"at most {MAX_RULES} rules", f"{len(quality)}")
    rules: list[QualityRule] = []
    for position, entry in enumerate(quality):
        path = f"schema[0].quality[{position}]"
        rule = _rule(entry, path)
        if any(rule.rule == other.rule for other in rules):
            raise KeyRefusedError(f"{path}.id", "a different id for each rule", rule.rule)
        if any((rule.type, rule.column) == (other.type, other.column) for other in rules):
            expected = "one rule for each type and column, because more could single out a record"
            raise KeyRefusedError(f"{path}.implementation", expected, "a second one")
        rules.append(rule)
    return tuple(rules)


def _rule(entry: dict[str, Any], path: str) -> QualityRule:
    if entry.get("type") != "custom" or entry.get("engine") != "great-expectations":
        expected = "type custom with engine great-expectations"
        raise KeyRefusedError(path, expected, ascii(entry.get("type", "nothing"))[:40])
    severity = _SEVERITIES.get(entry.get("severity", "critical"))
    if severity is None:
        expected = "one of " + ", ".join(_SEVERITIES)
        raise KeyRefusedError(f"{path}.severity", expected, ascii(entry["severity"])[:40])
    identifier = entry.get("id", "")
    if not 1 <= len(identifier) <= 60:
        raise KeyRefusedError(f"{path}.id", "1 to 60 characters", f"{len(identifier)}")
    try:
        return checked_rule(f"contract.{identifier.lower()}", severity, entry["implementation"])
    except KeyRefusedError as error:
        raise error.under(path) from None


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
        if not isinstance(value, str) or value not in allowed.columns:
            expected = "one of " + ", ".join(sorted(allowed.columns))
            raise KeyRefusedError(path, expected, ascii(value)[:80])
        return value
    if name == "value_set":
        return _value_set(path, value)
    if name == "mostly":
        return _share(path, value)
    if type(value) is not int or not 0 <= value < 2**53:
        raise KeyRefusedError(path, "a whole number from 0", ascii(value)[:80])
    if value % COARSE:
        expected = f"a multiple of {COARSE}, because a finer bound could single out a record"
        raise KeyRefusedError(path, expected, f"{value}")
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
    if round(value, 2) != value:
        raise KeyRefusedError(path, "a share with at most two decimals", f"{value}")
    return float(value)


def _check_bounds(allowed: AllowedType, arguments: dict[str, Any]) -> None:
    if "min_value" not in allowed.optional:
        return
    low, high = arguments.get("min_value"), arguments.get("max_value")
    if low is None and high is None:
        raise KeyRefusedError("implementation.kwargs", "min_value or max_value", "neither")
    if low is not None and high is not None and low > high:
        raise KeyRefusedError("implementation.kwargs.min_value", f"at most {high}", f"{low}")
    if low is not None and high is not None and high - low < COARSE:
        expected = f"bounds at least {COARSE} apart, because equal ones ask for an exact count"
        raise KeyRefusedError("implementation.kwargs", expected, f"{low} and {high}")


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
