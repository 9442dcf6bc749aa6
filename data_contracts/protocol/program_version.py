"""The version of this program, and which of two is the later."""

import re
from functools import cache
from importlib.metadata import version

_NUMBERS = re.compile(r"[0-9]+")


@cache
def program_version() -> str:
    """As the installed package says it, such as 0.1.0."""
    return version("consortia")


def is_later(one: str, other: str) -> bool:
    """Whether release `one` came after `other`, by the numbers in front of any letters."""
    return _release(one) > _release(other)


def _release(text: str) -> tuple[int, ...]:
    """0.2 and 0.2.0 are one release; what follows a letter is not compared."""
    head = re.split(r"[^0-9.]", text, maxsplit=1)[0]
    numbers = [int(n) for n in _NUMBERS.findall(head)[:4]]
    return tuple(numbers + [0] * (4 - len(numbers)))
