"""The first look at a contract's document: values of JSON, and text that people see.

A purpose, a name or a rule must say the same to whoever reads the file and to whoever acts on it,
so text holds no control character, none that changes the direction of writing and no line end but
newline. A document that came another way than through `strict_yaml` has the same values after this.
"""

import math
from typing import Any

from data_contracts.dataset.contract.refused_key import KeyRefusedError
from data_contracts.dataset.contract.strict_yaml import MAX_DEPTH
from data_contracts.shown_text import is_visible, quoted

_LARGEST = 10**18


def refuse_unless_plain(node: Any, path: str = "", depth: int = 0) -> None:
    """Raise KeyRefusedError for the first value below `node` that is none."""
    if depth > MAX_DEPTH:
        raise KeyRefusedError(path[:200], f"nesting of at most {MAX_DEPTH}", "deeper nesting")
    if isinstance(node, dict):
        for key, member in node.items():
            if type(key) is not str or not is_visible(key):
                raise KeyRefusedError(path or "the document", "keys that are text", quoted(key))
            refuse_unless_plain(member, f"{path}.{key}".removeprefix("."), depth + 1)
    elif isinstance(node, list):
        for position, member in enumerate(node):
            refuse_unless_plain(member, f"{path}[{position}]", depth + 1)
    elif isinstance(node, str):
        _refuse_unless_visible(node, path)
    elif not _is_plain(node):
        expected = "text, a number, true, false, null, a list or an object"
        raise KeyRefusedError(path[:200] or "the document", expected, type(node).__name__)


def _is_plain(node: Any) -> bool:
    if node is None or type(node) is bool:
        return True
    if type(node) is int:
        return abs(node) < _LARGEST
    return type(node) is float and math.isfinite(node)


def _refuse_unless_visible(text: str, path: str) -> None:
    if is_visible(text.replace("\n", "").replace("\t", "")):
        return
    (odd, *_) = (letter for letter in text if letter not in "\n\t" and not is_visible(letter))
    expected = "text that people see as it is, in lines that end with a newline"
    raise KeyRefusedError(path[:200] or "the document", expected, f"the character {odd!a}")
