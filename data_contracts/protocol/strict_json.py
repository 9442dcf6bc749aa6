"""JSON as it may be signed: bounded, no duplicate keys, no floats, in one spelling (RFC 8785)."""

import json
import re
from typing import Any

import rfc8785

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.remembered import remembered

MAX_DEPTH = 8
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""Also one that does not end: nothing after it is outside of a string."""
_BRACKETS = re.compile(rb"[\[\]{}]")


class DuplicateNameError(ValueError):
    """A JSON object with one name twice, which two readers may read differently."""


def distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of its members; raises DuplicateNameError."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise DuplicateNameError("duplicate key in an object")
    return result


def parse_strict(data: bytes, max_bytes: int) -> Any:
    """JSON without duplicate keys, floats, NaN or deep nesting; raises UntrustedInputError."""
    if len(data) > max_bytes:
        raise refused("JSON document", f"at most {max_bytes} bytes", f"{len(data)}", "size")
    if _depth(data) > MAX_DEPTH:
        raise refused("JSON document", f"nesting of at most {MAX_DEPTH}", "deeper", "depth")
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=distinct_names,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except (ValueError, UnicodeDecodeError) as error:
        raise refused("JSON document", "strict JSON", str(error)[:200], "json") from None


@remembered
def require_canonical(data: bytes, max_bytes: int, what: str) -> None:
    """Raise UntrustedInputError unless `data` is the one RFC 8785 spelling of what it says."""
    if _canonical(parse_strict(data, max_bytes), what) != data:
        raise refused(what, "RFC 8785 canonical bytes", "another encoding", "canonical")


def _canonical(parsed: Any, what: str) -> bytes:
    try:
        return rfc8785.dumps(parsed)
    except rfc8785.CanonicalizationError as error:
        raise refused(what, "RFC 8785 JSON", str(error)[:200], "canonical") from None


def _depth(data: bytes) -> int:
    """Deepest bracket nesting outside strings, found without recursion."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _no_number(text: str) -> Any:
    raise ValueError(f"{text[:20]} is not allowed: decimals travel as strings")


def refused(problem: str, expected: str, found: str, rule: str) -> UntrustedInputError:
    """What is raised for bytes of an envelope; `rule` is the second part of the rule's id."""
    return UntrustedInputError(
        problem,
        expected=expected,
        found=found,
        action="do not use these bytes; ask their sender for the original",
        rule=f"envelope.{rule}",
    )
