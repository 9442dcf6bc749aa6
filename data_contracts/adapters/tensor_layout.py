"""A safetensors file as a list of entries: the header to write, and the strict check of one read.

Guaranteed of a header that passes: exactly the expected names, each with the expected dtype, shape
and length, laid out without gaps or overlaps in any order; every number in it a plain whole one,
and its metadata nothing but text under text. So whoever else reads the file reads the same.
Layout reference: https://github.com/huggingface/safetensors (format section).
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.strict_json import distinct_names

FLOAT32_BYTES = 4
HEADER_LENGTH_BYTES = 8
HEADER_ALIGNMENT_BYTES = 8


@dataclass(frozen=True)
class Entry:
    """Dtype, shape and length in bytes of one tensor of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    length: int

    @classmethod
    def float32(cls, *shape: int) -> "Entry":
        """A float32 tensor of this shape."""
        return cls("F32", shape, math.prod(shape) * FLOAT32_BYTES)


@dataclass(frozen=True)
class OpenedLayout:
    """Where the data of a file begins, and start and end of every entry behind that."""

    data_start: int
    offsets: dict[str, tuple[int, int]]


def safetensors_header(entries: Mapping[str, Entry]) -> bytes:
    """Length and JSON header of a file that holds `entries` one after the other."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, entry in entries.items():
        offsets = [at, at + entry.length]
        header[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets}
        at += entry.length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT_BYTES)
    return struct.pack("<Q", len(text)) + text


def read_header(path: Path, size: int, limit: int) -> tuple[dict[str, Any], int]:
    """The JSON header of at most `limit` bytes, and where the data behind it starts.

    Raises UntrustedInputError when it is longer, cut off, no JSON object or names a tensor twice.
    """
    with path.open("rb") as file:
        prefix = file.read(HEADER_LENGTH_BYTES)
        if len(prefix) < HEADER_LENGTH_BYTES:
            raise rejected("adapter file", "a safetensors header", f"{size} bytes", "truncated")
        (length,) = struct.unpack("<Q", prefix)
        if length > limit:
            raise rejected("header", f"at most {limit} bytes", f"{length}", "header_too_large")
        raw = file.read(length)
    if len(raw) != length:
        raise rejected("header", f"{length} bytes", f"{len(raw)}", "bad_header")
    header = _json_object(raw)
    _require_text(header.pop("__metadata__", {}))
    return header, HEADER_LENGTH_BYTES + length


def _json_object(raw: bytes) -> dict[str, Any]:
    """One JSON object from the first byte on, with spaces behind it at most.

    Its numbers are whole and written in digits: -0, 2.0 and 1e2 are no whole numbers to readers in
    other languages.
    """
    expected = "one JSON object without duplicate names, its numbers whole and in digits"
    if not raw.startswith(b"{") or not raw.rstrip(b" ").endswith(b"}"):
        raise rejected("header", expected, "other bytes around it", "bad_header")
    try:
        header: dict[str, Any] = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=distinct_names,
            parse_int=_whole,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError):
        raise rejected("header", expected, "other", "bad_header") from None
    return header


def _whole(text: str) -> int:
    if text == "-0":
        raise ValueError("-0 is no whole number")
    return int(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text[:20]} is no whole number")


def _require_text(metadata: Any) -> None:
    """What the format allows there; nothing of it is read."""
    if not isinstance(metadata, dict) or not all(map(_is_text, metadata.values())):
        raise rejected("metadata", "an object of texts, or none", "other", "bad_metadata")
    if not all(map(_is_text, metadata)):
        raise rejected("metadata", "names of whole characters", "other", "bad_metadata")


def _is_text(value: Any) -> bool:
    """Text that has a spelling in UTF-8: JSON can also write half a character."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def checked_offsets(
    header: Mapping[str, Any], entries: Mapping[str, Entry]
) -> dict[str, tuple[int, int]]:
    """Start and end of each of `entries` behind the header, which names them and no other.

    Raises UntrustedInputError for other names, dtypes, shapes, lengths, for gaps and overlaps.
    """
    if set(header) != set(entries):
        wrong = sorted(set(header) ^ set(entries))[0]
        raise rejected("tensor names", "those of the plan", ascii(wrong)[:80], "wrong_names")
    offsets = {name: _checked_entry(name, header[name], entry) for name, entry in entries.items()}
    position = 0
    for start, end in sorted(offsets.values()):
        if start != position:
            raise rejected("tensor offsets", f"{position}", f"{start}", "gap_or_overlap")
        position = end
    return offsets


def _checked_entry(name: str, found: Any, entry: Entry) -> tuple[int, int]:
    if not isinstance(found, dict) or set(found) != {"dtype", "shape", "data_offsets"}:
        raise rejected(name, "dtype, shape and data_offsets", "other fields", "bad_header")
    if found["dtype"] != entry.dtype:
        raise rejected(name, f"dtype {entry.dtype}", ascii(found["dtype"])[:20], "wrong_dtype")
    if not _is_list_of_numbers(found["shape"]) or found["shape"] != list(entry.shape):
        raise rejected(
            name, f"shape {list(entry.shape)}", ascii(found["shape"])[:40], "wrong_shape"
        )
    offsets = found["data_offsets"]
    if (
        not _is_list_of_numbers(offsets)
        or len(offsets) != 2
        or offsets[0] < 0
        or offsets[1] - offsets[0] != entry.length
    ):
        raise rejected(name, f"offsets {entry.length} bytes apart", "other", "bad_header")
    return offsets[0], offsets[1]


def _is_list_of_numbers(found: Any) -> bool:
    """True is 1 to Python, and to nobody else."""
    return isinstance(found, list) and all(type(number) is int for number in found)


def open_layout(path: Path, entries: Mapping[str, Entry], what: str) -> OpenedLayout:
    """Check size, header, names, shapes and dtypes of a file before any tensor is read.

    Raises UntrustedInputError, with `what` for the name of the file, unless it holds `entries`.
    """
    size, limit = path.stat().st_size, bytes_limit(entries)
    if size > limit:
        raise rejected(what, f"at most {limit} bytes", f"{size}", "too_large")
    header, data_start = read_header(path, size, header_limit(entries))
    offsets = checked_offsets(header, entries)
    expected = data_start + payload_bytes(entries)
    if size != expected:
        raise rejected(what, f"{expected} bytes", f"{size}", "wrong_size")
    return OpenedLayout(data_start, offsets)


def bytes_limit(entries: Mapping[str, Entry]) -> int:
    """Largest file in bytes that can hold these entries, header included."""
    return payload_bytes(entries) + HEADER_LENGTH_BYTES + header_limit(entries)


def payload_bytes(entries: Mapping[str, Entry]) -> int:
    """Bytes that the entries take behind the header."""
    return sum(entry.length for entry in entries.values())


def header_limit(entries: Mapping[str, Entry]) -> int:
    """Generous for every legitimate header: names plus 128 bytes of JSON per tensor."""
    return 4096 + sum(len(name) + 128 for name in entries)


def rejected(problem: str, expected: str, found: str, rule: str) -> UntrustedInputError:
    """The error for an adapter that does not pass, with the rule that the close record names."""
    return UntrustedInputError(
        f"adapter: {problem}",
        expected=expected,
        found=found,
        action="train again with the recipe of the plan and submit what that run saved",
        rule=f"adapter.{rule}",
    )
