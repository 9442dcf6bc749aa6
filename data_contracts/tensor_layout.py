"""A safetensors file as a list of entries: the header to write, and the strict check of one read.

Guaranteed of a header that passes: exactly the expected names, each with the expected dtype, shape
and length, laid out without gaps or overlaps in any order.
Layout reference: https://github.com/huggingface/safetensors (format section).
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_contracts.adapter_format import FLOAT32_BYTES, _rejected, expected_shapes
from data_contracts.records.round_plan import AdapterSpec

HEADER_ALIGNMENT_BYTES = 8


@dataclass(frozen=True)
class Entry:
    """Dtype, shape and length in bytes of one tensor of a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    length: int


def adapter_entries(spec: AdapterSpec) -> dict[str, Entry]:
    """Every entry of a whole adapter in float32."""
    shapes = expected_shapes(spec)
    return {
        n: Entry("F32", shape, shape[0] * shape[1] * FLOAT32_BYTES) for n, shape in shapes.items()
    }


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


def checked_offsets(
    header: Mapping[str, Any], entries: Mapping[str, Entry]
) -> dict[str, tuple[int, int]]:
    """Start and end of each of `entries` behind the header, which names them and no other.

    Raises UntrustedInputError for other names, dtypes, shapes, lengths, for gaps and overlaps.
    """
    if set(header) != set(entries):
        wrong = sorted(set(header) ^ set(entries))[0]
        raise _rejected("tensor names", "those of the plan", ascii(wrong)[:80], "wrong_names")
    offsets = {name: _checked_entry(name, header[name], entry) for name, entry in entries.items()}
    position = 0
    for start, end in sorted(offsets.values()):
        if start != position:
            raise _rejected("tensor offsets", f"{position}", f"{start}", "gap_or_overlap")
        position = end
    return offsets


def _checked_entry(name: str, found: Any, entry: Entry) -> tuple[int, int]:
    if not isinstance(found, dict) or set(found) != {"dtype", "shape", "data_offsets"}:
        raise _rejected(name, "dtype, shape and data_offsets", "other fields", "bad_header")
    if found["dtype"] != entry.dtype:
        raise _rejected(name, f"dtype {entry.dtype}", ascii(found["dtype"])[:20], "wrong_dtype")
    if found["shape"] != list(entry.shape):
        raise _rejected(
            name, f"shape {list(entry.shape)}", ascii(found["shape"])[:40], "wrong_shape"
        )
    offsets = found["data_offsets"]
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(offset) is int and offset >= 0 for offset in offsets)
        or offsets[1] - offsets[0] != entry.length
    ):
        raise _rejected(name, f"offsets {entry.length} bytes apart", "other", "bad_header")
    return offsets[0], offsets[1]


def payload_bytes(entries: Mapping[str, Entry]) -> int:
    """Bytes that the entries take behind the header."""
    return sum(entry.length for entry in entries.values())


def header_limit(entries: Mapping[str, Entry]) -> int:
    """Generous for every legitimate header: names plus 128 bytes of JSON per tensor."""
    return 4096 + sum(len(name) + 128 for name in entries)
