"""Texts that other people chose, made safe for a Markdown page: they show as they are, on one line.

Nothing in them starts a block, a table cell, a link, code, HTML or another page. Backslash escapes
and character references are those of CommonMark; the pipe is that of GitHub's tables.
"""

import re
from collections.abc import Mapping

from markupsafe import Markup

_REFERENCES: Mapping[str, str] = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
_ESCAPED = "\\`*_{}[]()#+!|~$^="
# Controls, line and paragraph separators, what turns the direction of writing, and the characters
# that YAML and XML do not know.
_UNSHOWN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]+"
)
_SURROGATES = re.compile("[\ud800-\udfff]")


def one_line(text: str) -> str:
    """Without line breaks, controls and marks that turn the direction of writing."""
    plain = _SURROGATES.sub("\ufffd", _UNSHOWN.sub(" ", text))
    return " ".join(plain.split())


def as_text(value: object) -> Markup:
    """Running text; what is `Markup` already stays as it is."""
    if isinstance(value, Markup):
        return value
    escaped = "".join(_escaped(character) for character in one_line(str(value)))
    # An address becomes a link without any mark around it.
    linkless = re.sub(r"(?i)\b(https?|ftp|mailto|xmpp):", r"\1&#58;", escaped)
    linkless = re.sub(r"(?i)\bwww\.", "www&#46;", linkless)
    # At the start of a block these would begin a list, a rule or the underline of a heading.
    begun = re.sub(r"^-(?!\d)", r"\\-", linkless)
    return verbatim(re.sub(r"^(\d{1,9})\.(?=\s|$)", r"\1\\.", begun))


def as_code(value: object) -> Markup:
    """A code span on one line, also inside of a table."""
    text = one_line(str(value)).replace("|", "\\|")
    ticks = _longer_than_any_run(text, at_least=1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return verbatim(f"{ticks}{pad}{text}{pad}{ticks}")


def as_block(text: str, language: str = "") -> Markup:
    """A fenced block of several lines."""
    fence = _longer_than_any_run(text, at_least=3)
    return verbatim(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def verbatim(markdown: str) -> Markup:
    """Markdown that the caller vouches for: it has no text in it that others chose."""
    return Markup(markdown)  # noqa: S704


def _escaped(character: str) -> str:
    if character in _REFERENCES:
        return _REFERENCES[character]
    return f"\\{character}" if character in _ESCAPED else character


def _longer_than_any_run(text: str, at_least: int) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(at_least, longest + 1)
