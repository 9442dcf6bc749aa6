"""A key of a contract that is refused: where it is, what was expected, what was found."""

from pydantic import ValidationError


class KeyRefusedError(Exception):
    """`path` is relative to what was being read; whoever knows more puts its own path before it."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(f"{path}: expected {expected}; found {found}")
        self.path = path
        self.expected = expected
        self.found = found

    def under(self, path: str) -> "KeyRefusedError":
        """The same refusal, seen from where the key at `path` is read."""
        return KeyRefusedError(f"{path}.{self.path}", self.expected, self.found)


_BOUNDS: dict[str, tuple[str, str]] = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("of at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("of at most", "le"),
}
"""What a bound of pydantic is in words, and where its number is."""


def refused_value(error: ValidationError, prefix: str) -> KeyRefusedError:
    """The first fault of a value, an unknown key before what it upsets."""
    faults = error.errors(include_url=False, include_input=False)
    first = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    name, *rest = (str(part) for part in first["loc"])
    place = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in rest)
    if first["type"] == "missing":
        where = f"customProperties[{prefix}{name}]{place}"
        return KeyRefusedError(where, "a value: it has no default", "nothing")
    where = f"customProperties[{prefix}{name}]{place}"
    if first["type"] == "extra_forbidden":
        return KeyRefusedError(where, "a key of this term", "an unknown key")
    if first["type"] in _BOUNDS:
        words, bound = _BOUNDS[first["type"]]
        return KeyRefusedError(where, f"a number {words} {first['ctx'][bound]}", "another number")
    found = first["msg"].removeprefix("Value error, ")[:160]
    return KeyRefusedError(where, "a value of its kind", found)
