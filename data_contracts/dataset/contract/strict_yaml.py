"""YAML that means one thing: what a contract file may be made of.

Guaranteed before a value is handed on: at most `MAX_YAML_BYTES` of UTF-8, nesting of at most
`MAX_DEPTH`, no anchors or aliases (so nothing can be multiplied), no tags, no duplicate keys, only
text as keys, one document. Only true, false, null and plain decimal numbers are more than text:
`no`, `010`, `1:30` and dates stay what they look like, and the reader of a key decides.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from data_contracts.errors import DataStewardError

MAX_YAML_BYTES = 256 * 1024
MAX_DEPTH = 24

_TAG = "tag:yaml.org,2002:"
_PLAIN_VALUES = (
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("bool", r"^(?:true|false)$", ["t", "f"]),
    ("int", r"^-?(?:0|[1-9][0-9]{0,17})$", list("-0123456789")),
    ("float", r"^-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}$", list("-0123456789")),
)


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with the plain values of JSON and no others, and with duplicate keys refused."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML keeps them on the class

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if not isinstance(key, str):
                raise _RefusedAtError("a key that is text", f"{key!r}"[:60], key_node.start_mark)
            if key in seen:
                raise _RefusedAtError(
                    "each key once", f"{key!r} a second time"[:80], key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


for _name, _pattern, _first in _PLAIN_VALUES:
    _StrictLoader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


class _RefusedAtError(Exception):
    """What is wrong at a place in the file."""

    def __init__(self, expected: str, found: str, mark: Any) -> None:
        super().__init__(found)
        self.expected = expected
        self.found = found
        self.place = f"line {mark.line + 1}" if mark is not None else "the file"


def load_yaml(data: bytes, source: str) -> Any:
    """The one document in `data`; raises DataStewardError that names `source` and the line."""
    text = _decoded(data, source)
    try:
        _check_events(text)
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader, made stricter
    except _RefusedAtError as error:
        place = f"{source}: {error.place}"
        raise _refused(place, error.expected, error.found) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{source}: line {mark.line + 1}" if mark is not None else source
        problem = getattr(error, "problem", None) or "something else"
        raise _refused(place, "YAML", str(problem)[:120]) from None


def read_limited(path: Path) -> bytes:
    """Bytes of a contract file; raises DataStewardError when absent or larger than the limit."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_YAML_BYTES + 1)
    except OSError as error:
        found = error.strerror or "an unreadable file"
        raise _refused(str(path), "a readable contract file", found) from None


def _decoded(data: bytes, source: str) -> str:
    if len(data) > MAX_YAML_BYTES:
        raise _refused(source, f"at most {MAX_YAML_BYTES} bytes", "more")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(source, "UTF-8 text", f"another byte at {error.start}") from None


def _check_events(text: str) -> None:
    """Walk the event stream, which PyYAML makes without recursion, before anything is built."""
    depth = 0
    for event in yaml.parse(text, Loader=_StrictLoader):
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _RefusedAtError("every value written out", "an anchor or alias", mark)
        if getattr(event, "tag", None) is not None:
            raise _RefusedAtError("values without a tag", "a tag", mark)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _RefusedAtError(f"nesting of at most {MAX_DEPTH}", "deeper nesting", mark)


def _refused(problem: str, expected: str, found: str) -> DataStewardError:
    return DataStewardError(
        f"contract file {problem}",
        expected=expected,
        found=found,
        action="correct the file, and have silo and coordinator sign it again",
    )
