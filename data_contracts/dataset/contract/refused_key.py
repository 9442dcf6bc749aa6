"""A key of a contract that is refused: where it is, what was expected, what was found."""


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
