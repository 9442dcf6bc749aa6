"""Text as people see it: whether they see all of it, how it is quoted, how a size is told."""

import re

LONGEST_QUOTE = 60
UNITS = ("KB", "MB", "GB", "TB")
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls, ends of lines, what changes the direction of writing, and halves of characters."""


_BLANK = re.compile(
    r"[\s\x00-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    r"\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]*"
)
"""Spaces, controls, halves of characters, and what Unicode calls ignorable by default."""


def is_blank(text: str) -> bool:
    """Whether people see nothing where `text` stands."""
    return _BLANK.fullmatch(text) is not None


def is_visible(text: str) -> bool:
    """Whether people see on one line what `text` says."""
    return _INVISIBLE.search(text) is None


def quoted(value: object) -> str:
    """`value` in printable ASCII and cut, fit for a message on one line."""
    text = ascii(value)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}... ({len(text):,} long)"


def size_text(size: int) -> str:
    """Bytes in a unit that fits, of a thousand of the one before."""
    if size < 1000:
        return f"{size} B"
    power = min((len(str(size)) - 1) // 3, len(UNITS))
    return f"{size / 1000**power:.1f} {UNITS[power - 1]}"
