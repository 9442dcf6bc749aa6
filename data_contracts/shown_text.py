"""Text as people see it: whether they see all of it, and how a message quotes it."""

import re

LONGEST_QUOTE = 60
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls, ends of lines, what changes the direction of writing, and halves of characters."""


def is_visible(text: str) -> bool:
    """Whether people see on one line what `text` says."""
    return _INVISIBLE.search(text) is None


def quoted(value: object) -> str:
    """`value` in printable ASCII and cut, fit for a message on one line."""
    text = ascii(value)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}... ({len(text):,} long)"
