"""The gate for adapter bytes that another party wrote.

safetensors' own reader accepts duplicate names, NaN, `../` in names and absurd shapes, and spends
seconds and gigabytes on a bloated header. So this gate reads the header first, with a size cap,
and lets through only float32 tensors with exactly the names and shapes that the plan's adapter
spec implies, laid out without gaps, every value finite, and not all zero.
Layout reference: https://github.com/huggingface/safetensors (format section).
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_contracts.errors import UntrustedInputError
from data_contracts.records.round_plan import AdapterSpec, AdapterTarget

FLOAT32_BYTES = 4
MAX_ABSOLUTE_VALUE = 1e4
"""Far beyond any trained LoRA factor, far below what could overflow a float32 product."""
HEADER_LENGTH_BYTES = 8

Float32Array = npt.NDArray[np.float32]


def lora_a_name(module: str) -> str:
    """PEFT's tensor name of A (rank x in_features) of a module."""
    return f"base_model.model.{module}.lora_A.weight"


def lora_b_name(module: str) -> str:
    """PEFT's tensor name of B (out_features x rank) of a module."""
    return f"base_model.model.{module}.lora_B.weight"


def expected_shapes(spec: AdapterSpec) -> dict[str, tuple[int, int]]:
    """Name and shape of every tensor that an adapter of this spec has, and no other."""
    shapes: dict[str, tuple[int, int]] = {}
    for target in spec.targets:
        shapes[lora_a_name(target.module)] = (spec.rank, target.in_features)
        shapes[lora_b_name(target.module)] = (target.out_features, spec.rank)
    return shapes


def adapter_bytes_limit(spec: AdapterSpec) -> int:
    """Largest file in bytes that can hold an adapter of this spec, header included."""
    return _payload_bytes(spec) + HEADER_LENGTH_BYTES + _header_limit(spec)


@dataclass(frozen=True)
class AdapterFile:
    """An adapter whose header passed the gate; tensors are read one module at a time."""

    path: Path
    spec: AdapterSpec
    data_start: int
    offsets: dict[str, tuple[int, int]]

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        """(A, B) of one module as float32 arrays; raises UntrustedInputError if not finite."""
        shapes = expected_shapes_of(self.spec.rank, target)
        a, b = (self._tensor(name, shape) for name, shape in shapes)
        return a, b

    def modules(self) -> Iterator[tuple[AdapterTarget, Float32Array, Float32Array]]:
        """Every module in the order of the spec."""
        for target in self.spec.targets:
            a, b = self.module(target)
            yield target, a, b

    def _tensor(self, name: str, shape: tuple[int, int]) -> Float32Array:
        start, end = self.offsets[name]
        array: Float32Array = np.empty(shape, dtype="<f4")
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.data_start + start)
            if file.readinto(array.data.cast("B")) != end - start:
                raise _rejected("adapter file", "its full length", "a shorter file", "truncated")
        # NaN wins in min and max, so two quick passes tell whether every value is finite.
        largest = max(float(array.max()), -float(array.min()))
        if not math.isfinite(largest):
            raise _rejected(name, "finite values", "NaN or infinity", "not_finite")
        if largest > MAX_ABSOLUTE_VALUE:
            limit = f"values of at most {MAX_ABSOLUTE_VALUE:g}"
            raise _rejected(name, limit, f"{largest:g}", "value_too_large")
        return array


def expected_shapes_of(
    rank: int, target: AdapterTarget
) -> tuple[tuple[str, tuple[int, int]], tuple[str, tuple[int, int]]]:
    """Name and shape of the A and the B of one module."""
    return (
        (lora_a_name(target.module), (rank, target.in_features)),
        (lora_b_name(target.module), (target.out_features, rank)),
    )


def open_adapter(path: Path, spec: AdapterSpec) -> AdapterFile:
    """Check size, header, names, shapes and dtypes before any tensor is read."""
    size = path.stat().st_size
    if size > adapter_bytes_limit(spec):
        limit = f"at most {adapter_bytes_limit(spec)} bytes"
        raise _rejected("adapter file", limit, f"{size}", "too_large")
    header, data_start = _read_header(path, size, _header_limit(spec))
    offsets = _checked_offsets(header, spec)
    if data_start + _payload_bytes(spec) != size:
        expected = f"{data_start + _payload_bytes(spec)} bytes"
        raise _rejected("adapter file", expected, f"{size}", "wrong_size")
    return AdapterFile(path, spec, data_start, offsets)


def check_adapter(path: Path, spec: AdapterSpec) -> AdapterFile:
    """The whole gate: `open_adapter`, then every value finite and not every B zero."""
    adapter = open_adapter(path, spec)
    contributes = False
    for _, _, b in adapter.modules():
        contributes = contributes or bool(b.any())
    if not contributes:
        raise _rejected("adapter", "at least one non-zero B", "every B is zero", "zero_delta")
    return adapter


def _read_header(path: Path, size: int, limit: int) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        prefix = file.read(HEADER_LENGTH_BYTES)
        if len(prefix) < HEADER_LENGTH_BYTES:
            raise _rejected("adapter file", "a safetensors header", f"{size} bytes", "truncated")
        (length,) = struct.unpack("<Q", prefix)
        if length > limit:
            raise _rejected("header", f"at most {limit} bytes", f"{length}", "header_too_large")
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        raise _rejected("header", "JSON without duplicate names", "other", "bad_header") from None
    if len(raw) != length or not isinstance(header, dict):
        raise _rejected("header", f"{length} bytes of JSON object", "other", "bad_header")
    header.pop("__metadata__", None)
    return header, HEADER_LENGTH_BYTES + length


def _checked_offsets(header: dict[str, Any], spec: AdapterSpec) -> dict[str, tuple[int, int]]:
    shapes = expected_shapes(spec)
    if set(header) != set(shapes):
        wrong = sorted(set(header) ^ set(shapes))[0]
        raise _rejected("tensor names", "those of the plan", ascii(wrong)[:80], "wrong_names")
    offsets = {name: _checked_entry(name, header[name], shape) for name, shape in shapes.items()}
    position = 0
    for start, end in sorted(offsets.values()):
        if start != position:
            raise _rejected("tensor offsets", f"{position}", f"{start}", "gap_or_overlap")
        position = end
    return offsets


def _checked_entry(name: str, entry: Any, shape: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _rejected(name, "dtype, shape and data_offsets", "other fields", "bad_header")
    if entry["dtype"] != "F32":
        raise _rejected(name, "dtype F32", ascii(entry["dtype"])[:20], "wrong_dtype")
    if entry["shape"] != list(shape):
        raise _rejected(name, f"shape {list(shape)}", ascii(entry["shape"])[:40], "wrong_shape")
    offsets = entry["data_offsets"]
    length = shape[0] * shape[1] * FLOAT32_BYTES
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(offset) is int and offset >= 0 for offset in offsets)
        or offsets[1] - offsets[0] != length
    ):
        raise _rejected(name, f"offsets {length} bytes apart", "other", "bad_header")
    return offsets[0], offsets[1]


def _payload_bytes(spec: AdapterSpec) -> int:
    return sum(rows * columns for rows, columns in expected_shapes(spec).values()) * FLOAT32_BYTES


def _header_limit(spec: AdapterSpec) -> int:
    """Generous for every legitimate header: names plus 128 bytes of JSON per tensor."""
    return 4096 + sum(len(name) + 128 for name in expected_shapes(spec))


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("duplicate tensor name")
    return result


def _rejected(problem: str, expected: str, found: str, reason: str) -> UntrustedInputError:
    return UntrustedInputError(
        f"adapter: {problem}",
        expected=expected,
        found=found,
        action="train again with the recipe of the plan and submit what that run saved",
        reason=f"adapter.{reason}",
    )
