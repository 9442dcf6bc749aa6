"""What a round needs of a silo, item by item: there, missing or wrong, and the next command.

`look` reads whatever there is, and every fault becomes a value; `checklist` is pure and names all
that can be told at once. Nothing is changed but `precision.json`, where that is to be measured, and
nothing of the data is read but its size.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from data_contracts.errors import ConsortiaError

State = Literal["there", "missing", "wrong", "warning", "not checked"]
REFUSED: tuple[State, ...] = ("missing", "wrong")

_T = TypeVar("_T")
Look: TypeAlias = _T | ConsortiaError
"""What was read, or the fault that kept it from being read."""


@dataclass(frozen=True)
class Item:
    """One line of the checklist. `next_step` is a sentence, or a command where `is_command`."""

    name: str
    state: State
    detail: str
    next_step: str = ""
    is_command: bool = False

    @property
    def refused(self) -> bool:
        """Whether a round would be refused, or fail, because of this."""
        return self.state in REFUSED


def there(name: str, detail: str) -> Item:
    """An item that a round can count on."""
    return Item(name, "there", detail)


def missing(name: str, path: Path, command: str) -> Item:
    """A file that is not there yet, and the command that brings it or uses it."""
    return Item(name, "missing", str(path), command, is_command=True)


def wrong(name: str, detail: str, next_step: str) -> Item:
    """An item that is there and would have a round refused."""
    return Item(name, "wrong", detail, next_step)


def of_fault(name: str, fault: ConsortiaError) -> Item:
    """The item of something that could not be read."""
    return wrong(
        name, f"{fault.problem}: expected {fault.expected}; found {fault.found}", fault.action
    )


def tried(read: Callable[[], _T]) -> Look[_T]:
    """The value, or the fault as a value."""
    try:
        return read()
    except ConsortiaError as error:
        return error


def refusals(items: Iterable[Item]) -> list[str]:
    """Names of the items that a round would be refused for."""
    return [item.name for item in items if item.refused]


def days_left(expires: datetime, now: datetime) -> str:
    """An expiry in words."""
    return f"until {expires:%Y-%m-%d}, {(expires - now).days} days from now"
