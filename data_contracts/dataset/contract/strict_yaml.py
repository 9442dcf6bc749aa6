"""YAML that means one thing: what a contract file may be made of.

Guaranteed before a value is handed on: at most `MAX_YAML_BYTES` of UTF-8 and `MAX_VALUES`, lines
that end as they do in every editor, nesting of at most `MAX_DEPTH`, no anchors or aliases (so
nothing can be multiplied), no tags, no duplicate keys, only text as keys, one document. Only true,
false, null and plain decimal numbers are more than text: `no`, `010`, `1:30` and dates stay what
they look like, and the reader of a key decides. The text is gone through once, event by event,
without recursion.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from data_contracts.errors import DataStewardError

MAX_YAML_BYTES = 256 * 1024
MAX_DEPTH = 24
MAX_VALUES = 4000
"""Texts, numbers, lists and objects together; what looks at them takes milliseconds for each."""

_NULL = re.compile(r"(?:~|null|)")
_BOOLEANS = {"true": True, "false": False}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}")
# YAML 1.1 ends lines at these too, where most editors show none.
_ODD_LINE_END = re.compile("[\x85\u2028\u2029]|\r(?!\n)")


class YamlRefusedError(Exception):
    """What is wrong at a `place` in the file, which is empty for all of it."""

    def __init__(self, expected: str, found: str, place: str = "") -> None:
        super().__init__(f"{place}: expected {expected}; found {found}")
        self.expected = expected
        self.found = found
        self.place = place


def load_yaml(data: bytes) -> Any:
    """The one document in `data`; raises YamlRefusedError that names the line."""
    text = _decoded(data)
    try:
        return _document(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "something else"
    raise YamlRefusedError("YAML", str(problem)[:120], _line(mark) if mark is not None else "")


def read_limited(path: Path) -> bytes:
    """Bytes of a contract file; raises DataStewardError when absent or larger than the limit."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        found = error.strerror or "an unreadable file"
        raise DataStewardError(
            f"contract file {path}",
            expected="a readable contract file",
            found=found,
            action="correct the file, and have silo and coordinator sign it again",
        ) from None


def _decoded(data: bytes) -> str:
    if len(data) > MAX_YAML_BYTES:
        raise YamlRefusedError(f"at most {MAX_YAML_BYTES} bytes", "more")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise YamlRefusedError("UTF-8 text", f"another byte at {error.start}") from None
    if (odd := _ODD_LINE_END.search(text)) is not None:
        place = f"line {text.count(chr(10), 0, odd.start()) + 1}"
        found = f"one that ends with {odd[0]!a}"
        raise YamlRefusedError("lines that end with a newline", found, place)
    return text


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}"


class _Level:
    """A list or an object that is being filled; of an object the key that waits for its value."""

    def __init__(self, value: list[Any] | dict[str, Any]) -> None:
        self.value = value
        self.key: str | None = None

    def add(self, member: Any, mark: Any) -> None:
        """The next member, or the next key or its value."""
        if isinstance(self.value, list):
            self.value.append(member)
        elif self.key is not None:
            self.value[self.key], self.key = member, None
        elif not isinstance(member, str):
            raise YamlRefusedError("a key that is text", ascii(member)[:60], _line(mark))
        elif member in self.value:
            raise YamlRefusedError("each key once", f"{member!r} a second time"[:80], _line(mark))
        else:
            self.key = member


def _document(text: str) -> Any:
    """The one document, built from PyYAML's events; None when there is none."""
    root: list[Any] = []
    levels = [_Level(root)]
    documents = values = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise YamlRefusedError("every value written out", "an anchor or alias", _line(mark))
        if getattr(event, "tag", None) is not None:
            raise YamlRefusedError("values without a tag", "a tag", _line(mark))
        values += isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if values > MAX_VALUES:
            raise YamlRefusedError(f"at most {MAX_VALUES} keys and values", "more", _line(mark))
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise YamlRefusedError("YAML", "a second document", _line(mark))
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(levels) > MAX_DEPTH:
                raise YamlRefusedError(
                    f"nesting of at most {MAX_DEPTH}", "deeper nesting", _line(mark)
                )
            levels.append(_Level([] if isinstance(event, yaml.SequenceStartEvent) else {}))
        elif isinstance(event, yaml.CollectionEndEvent):
            levels[-2].add(levels.pop().value, mark)
        elif isinstance(event, yaml.ScalarEvent):
            levels[-1].add(_scalar(event), mark)
    return root[0] if root else None


def _scalar(event: yaml.ScalarEvent) -> Any:
    """Text, unless it is written plainly and looks like one of the other values of JSON."""
    text: str = event.value
    if not event.implicit[0]:
        return text
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _NULL.fullmatch(text):
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text
