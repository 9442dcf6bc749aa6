"""What the switches of `tests.chaos.guards` ask: which guards are off, and which test made one act.

A guard acts where it refuses: where it does not, deleting it changes nothing. So only the tests in
which it acted have to be run without it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from pydantic import AfterValidator
from pydantic_core import PydanticKnownError

T = TypeVar("T")

NAME_AND_TWO = 3
"""What a row has that compares."""

_BROKEN: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "ge": ("greater_than_equal", lambda value, bound: value < bound),
    "gt": ("greater_than", lambda value, bound: value <= bound),
    "le": ("less_than_equal", lambda value, bound: value > bound),
    "lt": ("less_than", lambda value, bound: value >= bound),
    "pattern": (
        "string_pattern_mismatch",
        lambda value, bound: re.search(bound.removesuffix("$") + r"\Z", value) is None,
    ),
}


class Switchboard:
    """`off`: the guards that are deleted. `acted`: by guard, the tests in which it acted.
    `trusted`: the keys that were trusted for anything."""

    def __init__(self) -> None:
        self.off: frozenset[str] = frozenset()
        self.test: str | None = None
        self.acted: dict[str, dict[str, None]] = {}
        self.trusted: set[str] = set()

    def _note(self, guard: str) -> None:
        if self.test is not None:
            self.acted.setdefault(guard, {})[self.test] = None

    def fires(self, guard: str) -> bool:
        """Asked where a condition that refuses holds."""
        self._note(guard)
        return guard not in self.off

    def yields(self, guard: str) -> bool:
        """Asked where a condition that has to hold does not."""
        self._note(guard)
        return guard in self.off

    def call(self, guard: str, function: Callable[[], T]) -> T | None:
        """A call for its exception."""
        try:
            return function()
        except Exception:
            if self.fires(guard):
                raise
            return None

    def rule(self, guard: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """An entry of a table: with no objection, or nothing to change, where it is off."""

        def asked(*args: Any, **kwargs: Any) -> Any:
            found = function(*args, **kwargs)
            if not found or self.fires(guard):
                return found
            return {} if isinstance(found, dict) else None

        return asked

    def rows(self, guards: Sequence[str], rows: Sequence[T]) -> tuple[T, ...]:
        """The rows that are not off. One of a name and two values acts where these differ; what
        another does alone is not known."""
        for guard, row in zip(guards, rows, strict=True):
            values = tuple(row) if isinstance(row, tuple) else ()
            if len(values) != NAME_AND_TWO or values[1] != values[2]:
                self._note(guard)
        return tuple(r for guard, r in zip(guards, rows, strict=True) if guard not in self.off)

    def smallest(self, guards: Sequence[str], values: Sequence[Any]) -> Any:
        """The minimum of those that are not off; one that alone is the smallest acts."""
        least = min(values)
        smallest = [guard for guard, value in zip(guards, values, strict=True) if value == least]
        if len(smallest) == 1:
            self._note(smallest[0])
        kept = [v for guard, v in zip(guards, values, strict=True) if guard not in self.off]
        return min(kept)

    def cut(self, guard: str, values: Any, most: int) -> Any:
        """No more than `most` of a sequence."""
        if len(values) <= most:
            return values[:most]
        return values[:most] if self.fires(guard) else values[:]

    def keys(self, guard: str, keys: Iterable[str]) -> frozenset[str]:
        """The keys that may sign; where it is off, every one that was trusted for anything."""
        given = frozenset(keys)
        self._note(guard)
        self.trusted |= given
        return frozenset(self.trusted) if guard in self.off else given

    def validator(self, guard: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """What a field is held against, with the value as it was where that is off."""

        def asked(value: Any) -> Any:
            found = self.call(guard, lambda: function(value))
            return value if found is None else found

        return asked

    def bounded(self, bounds: Sequence[tuple[str, str, Any]]) -> AfterValidator:
        """The bounds of an annotation, with the messages that pydantic has for them."""

        def asked(value: Any) -> Any:
            for guard, name, bound in bounds:
                fault = None if value is None else _fault(value, name, bound)
                if fault is not None and self.fires(guard):
                    raise fault
            return value

        return AfterValidator(asked)


def _fault(value: Any, name: str, bound: Any) -> PydanticKnownError | None:
    if name in _BROKEN:
        kind, is_broken = _BROKEN[name]
        return PydanticKnownError(kind, {name: bound}) if is_broken(value, bound) else None  # type: ignore[arg-type]
    is_long = name == "max_length"
    length = len(value)
    if length <= bound if is_long else length >= bound:
        return None
    if isinstance(value, str):
        kind = "string_too_long" if is_long else "string_too_short"
        return PydanticKnownError(kind, {name: bound})  # type: ignore[arg-type]
    kind = "too_long" if is_long else "too_short"
    context = {name: bound, "field_type": type(value).__name__, "actual_length": length}
    return PydanticKnownError(kind, context)  # type: ignore[arg-type]


BOARD = Switchboard()
