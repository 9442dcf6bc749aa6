"""One rule of this package: a kind, when to try it, what it looks like, what it must also be."""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """Finds `kind` where `pattern` matches and `accepts` agrees.

    The pattern is tried on a text that has one of `cues` (lower case; empty: always) in it, and
    with `needs_digit` only on a text with an ASCII digit.
    """

    kind: str
    cues: tuple[str, ...]
    pattern: re.Pattern[str]
    accepts: Callable[[re.Match[str]], bool] = lambda match: True
    needs_digit: bool = True

    def add_to(self, found: dict[str, int], text: str, lower: str) -> None:
        """Add the finds in `text` to `found`; `lower` is the text in lower case."""
        for cue in self.cues:
            if cue in lower:
                break
        else:
            if self.cues:
                return
        count = sum(1 for match in self.pattern.finditer(text) if self.accepts(match))
        if count:
            found[self.kind] = found.get(self.kind, 0) + count
