"""Mutated adapters before the real gate: in full, int8 and int4; of pairs, and with a head.

What comes through has to be what the same bytes say to a reader that shares no code with the gate:
safetensors' own, and a decoder of a few lines. Everything else has to be refused with a rule of the
gate, within a second.
"""

import json
import random
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from json.encoder import encode_basestring_ascii
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import safetensors.numpy

from data_contracts.adapters.adapter_format import MAX_ABSOLUTE_VALUE, expected_shapes, open_adapter
from data_contracts.adapters.block_quantisation import SCHEMES, Scheme, quantise
from data_contracts.adapters.quantised_format import (
    codes_name,
    open_quantised,
    quantised_entries,
    scales_name,
)
from data_contracts.adapters.remembered_start import RememberedStart
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, tensors_of
from data_contracts.adapters.submission_gate import check_submission
from data_contracts.adapters.tensor_layout import safetensors_header
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from tests.chaos.hangs import no_hang
from tests.data_contracts.record_samples import PLAN

LAYOUT = AdapterLayout(
    rank=2,
    alpha=4,
    seed=7,
    targets=(
        AdapterTarget(module="model.down", in_features=6, out_features=3),
        AdapterTarget(module="model.up", in_features=3, out_features=5),
    ),
)
WITH_HEAD = LAYOUT.model_copy(
    update={
        "targets": (
            *LAYOUT.targets,
            AdapterTarget(
                module="head.weight",
                in_features=5,
                out_features=3,
                whole="matrix",
                initial="normal",
            ),
            AdapterTarget(
                module="head.bias", in_features=1, out_features=3, whole="vector", initial="zeros"
            ),
        )
    }
)
STARTS = {layout: RememberedStart(InitialAdapter(layout), 2) for layout in (LAYOUT, WITH_HEAD)}
IN_MEMORY, ROOM = Path("/dev/shm"), 1 << 26


class Spelt(str):
    """A piece of JSON as it is to be written."""


class Pairs(list[tuple[str, Any]]):
    """A JSON object as it is written: in which a name can come twice."""


NUMBERS = [
    Spelt(text)
    for text in [
        "2.0",
        "2e0",
        "-0",
        "-1",
        "-2",
        "1E2",
        "true",
        "false",
        "null",
        "02",
        "0x2",
        "NaN",
        "Infinity",
        "9007199254740993",
        "1e999",
        "18446744073709551616",
        "99999999999999999999999999",
        "0.0",
        "-0.0",
        "[2]",
        "{}",
        '"2"',
    ]
]
TEXTS = [
    "",
    "F32",
    "f32",
    "F64",
    "BF16",
    "I8",
    "U8",
    "../../etc/passwd",
    "base_model.model.model.up.lora_A.weight\0",
    "base_model.model.head.lora_A.weight",
    "base_model.model.model.u\u0440.lora_A.weight",
    "\ud800",
    "__metadata__",
    "x" * 5000,
]
METADATA: list[Any] = [
    Pairs([("format", "pt")]),
    Pairs(),
    Pairs([("format", Spelt("1"))]),
    Pairs([("format", Pairs([("a", "b")]))]),
    Pairs([("format", Spelt("null"))]),
    Pairs([("format", Spelt('["pt"]'))]),
    Pairs([("\ud800", "pt")]),
    Pairs([("format", "\udfff")]),
    Spelt("null"),
    Spelt("[]"),
    Spelt('"pt"'),
]


def spell(value: Any) -> str:
    """JSON of a value."""
    kind = type(value)
    if kind is Spelt:
        return str(value)
    if kind is Pairs:
        return "{" + ",".join([f"{_text(name)}:{spell(item)}" for name, item in value]) + "}"
    if kind is Entry:
        return str(value.text)
    if kind is list:
        return "[" + ",".join([spell(item) for item in value]) + "]"
    return _text(value) if kind is str else json.dumps(value)


def _text(value: str) -> str:
    return str(encode_basestring_ascii(value))


class Entry(Pairs):
    """What the header says of one tensor, spelt once for all files that leave it as it is."""

    text: str


@dataclass(frozen=True)
class Sample:
    """A file that passes: its header as pairs, and the bytes behind it."""

    layout: AdapterLayout
    scheme: Scheme | None
    header: Pairs
    data: bytes

    @cached_property
    def text(self) -> bytes:
        """The header."""
        return spell(self.header).encode()

    @cached_property
    def whole(self) -> bytes:
        """The file."""
        return joined(self.text, self.data)


def joined(header: bytes, data: bytes) -> bytes:
    """Length, header and data."""
    return struct.pack("<Q", len(header)) + header + data


def samples() -> list[Sample]:
    """One file of each format and layout."""
    return [sample for layout in STARTS for sample in _samples_of(layout)]


def _samples_of(layout: AdapterLayout) -> list[Sample]:
    rng = np.random.default_rng(3)
    local = {
        name: rng.standard_normal(shape).astype(np.float32) * np.float32(0.1)
        for name, shape in expected_shapes(layout).items()
    }
    whole = safetensors.numpy.save(local)
    start = tensors_of(STARTS[layout])
    found = [_sample(layout, None, whole)]
    for scheme in SCHEMES.values():
        entries = quantised_entries(layout, scheme)
        data = bytearray()
        for name, tensor in local.items():
            blocks = quantise(tensor - start[name], scheme)
            data += blocks.codes.tobytes() + blocks.scales.tobytes()
        found.append(_sample(layout, scheme, safetensors_header(entries) + bytes(data)))
    return found


def _sample(layout: AdapterLayout, scheme: Scheme | None, file: bytes) -> Sample:
    (length,) = struct.unpack("<Q", file[:8])
    header = json.loads(file[8 : 8 + length], object_pairs_hook=Entry)
    for _, entry in header:
        entry.text = spell(Pairs(entry))
    header = Pairs(header)
    return Sample(layout, scheme, header, file[8 + length :])


Mutator = Callable[[random.Random, Sample], bytes]


def flipped(rng: random.Random, sample: Sample) -> bytes:
    """Some bits of the file, more often of the header."""
    file = bytearray(sample.whole)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        end = len(file) if rng.random() < 0.5 else len(file) - len(sample.data)
        file[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(file)


def cut_or_grown(rng: random.Random, sample: Sample) -> bytes:
    """A piece removed, doubled, put elsewhere or put in."""
    file = sample.whole
    start, end = sorted(rng.randrange(len(file) + 1) for _ in range(2))
    piece, at = file[start:end], rng.randrange(len(file) + 1)
    return rng.choice(
        (
            file[:end],
            file[start:],
            file[:start] + file[end:],
            file[:at] + piece + file[at:],
            file + bytes(rng.randrange(1, 64)),
            file[:at] + rng.randbytes(rng.randrange(1, 16)) + file[at:],
        )
    )


def other_length(rng: random.Random, sample: Sample) -> bytes:
    """Another length before the header."""
    header = sample.text
    length = rng.choice(
        (len(header) + rng.randrange(-9, 10), rng.getrandbits(64), rng.getrandbits(16), 0)
    )
    return struct.pack("<Q", max(length, 0)) + header + sample.data


def other_header(rng: random.Random, sample: Sample) -> bytes:
    """One to three changes of what the header says."""
    header = Pairs((n, entry) for n, entry in sample.header if n != "__metadata__")
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change_entry(rng, header)
    if rng.random() < 0.5:
        header.insert(rng.randrange(len(header) + 1), ("__metadata__", rng.choice(METADATA)))
    text = spell(header)
    return joined(_spaced(rng, text).encode("utf-8", "surrogatepass"), sample.data)


def _change_entry(rng: random.Random, header: Pairs) -> None:
    if not header:
        return
    at = rng.randrange(len(header))
    name, entry = header[at]
    kind = rng.randrange(8)
    if kind == 0:
        header[at] = (rng.choice([*TEXTS, *(other for other, _ in header), name.upper()]), entry)
    elif kind == 1:
        header.append(header[at] if rng.random() < 0.5 else (rng.choice(TEXTS), entry))
    elif kind == 2:
        header.pop(at)
    elif kind == 3:
        rng.shuffle(header)
    elif kind == 4:
        header[at] = (name, rng.choice([Spelt("null"), Spelt("[]"), Spelt("1"), Pairs()]))
    elif isinstance(entry, Pairs) and entry:
        header[at] = (name, _changed_fields(rng, Pairs(entry)))


def _changed_fields(rng: random.Random, fields: Pairs) -> Pairs:
    at = rng.randrange(len(fields))
    field, value = fields[at]
    kind = rng.randrange(5)
    if kind == 0:
        fields[at] = (rng.choice(("shape", "dtype", "data_offsets", "Shape", "x")), value)
    elif kind == 1:
        fields.append(rng.choice((fields[at], ("x", 1), (field, Spelt("0")))))
    elif kind == 2:
        fields.pop(at)
    elif isinstance(value, list) and value:
        fields[at] = (field, _changed_numbers(rng, list(value)))
    else:
        fields[at] = (field, rng.choice([*TEXTS, *NUMBERS]))
    return fields


def _changed_numbers(rng: random.Random, numbers: list[Any]) -> list[Any]:
    at = rng.randrange(len(numbers))
    kind, number = rng.randrange(6), numbers[at]
    if kind == 0 and type(number) is int:
        numbers[at] = Spelt(rng.choice((f"{number}.0", f"{number}e0", f"-{number}", f"0{number}")))
    elif kind == 1 and number in (0, 1):
        numbers[at] = Spelt("true" if number else "false")
    elif kind == 2:
        numbers[at] = rng.choice(NUMBERS)
    elif kind == 3:
        numbers.insert(at, rng.choice((0, 1, 2, Spelt("1.0"))))
    elif kind == 4:
        numbers.pop(at)
    elif type(number) is int:
        numbers[at] = number + rng.choice((-8, -4, -1, 1, 4, 8, 2**32, 2**63))
    return numbers


def _spaced(rng: random.Random, text: str) -> str:
    """Mostly as it is, else with white space or other things around it."""
    around = rng.choice(("", "", "", "", " ", "   ", "\n", "\t", "\0", "\ufeff", "x", "{}"))
    return text + around if rng.random() < 0.8 else around + text


VALUES = [
    np.float32(value)
    for value in [
        "nan",
        "inf",
        "-inf",
        "0",
        "-0",
        "1e-45",
        "1e-38",
        "1e4",
        "10000.001",
        "1e38",
        "3.4e38",
        "-1e4",
        "1",
        "-1",
    ]
]


def other_values(rng: random.Random, sample: Sample) -> bytes:
    """Values that no training writes, in some places or everywhere."""
    data = bytearray(sample.data)
    kind = rng.randrange(4)
    if kind == 0:
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data) // 4) * 4
            data[at : at + 4] = rng.choice(VALUES).tobytes()
    elif kind == 1:
        data = bytearray(rng.choice((0, 0x7F, 0x80, 0x88, 0xFF)) for _ in data)
    elif kind == 2:
        start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        data[start:end] = bytes(end - start)
    else:
        data = bytearray(rng.randbytes(len(data)))
    return joined(sample.text, bytes(data))


MUTATORS: tuple[tuple[Mutator, int], ...] = (
    (flipped, 3),
    (cut_or_grown, 2),
    (other_length, 1),
    (other_header, 6),
    (other_values, 3),
)


@dataclass
class Counts:
    """How many were let through, and how many refused by which rule."""

    accepted: int
    refused: dict[str, int]

    @property
    def cases(self) -> int:
        """All of them."""
        return self.accepted + sum(self.refused.values())


def run(cases: int, seed: int) -> Counts:
    """That many mutants; raises AssertionError with the case for a crash or a wrong acceptance."""
    in_memory = IN_MEMORY.is_dir() and shutil.disk_usage(IN_MEMORY).free > ROOM
    found, counts = samples(), Counts(0, {})
    mutators, weights = zip(*MUTATORS, strict=True)
    with TemporaryDirectory(dir=IN_MEMORY if in_memory else None) as directory:
        path = Path(directory) / "adapter"
        for sample in found:
            path.write_bytes(sample.whole)
            assert judged(path, sample) is None, f"the sample itself is refused: {sample.scheme}"
        for number in range(cases):
            rng = random.Random(f"{seed}/{number}")
            sample = rng.choice(found)
            file = rng.choices(mutators, weights)[0](rng, sample)
            path.write_bytes(file)
            where = f"adapter {number} of seed {seed} ({sample.scheme})"
            with no_hang(where):
                rule = judged(path, sample)
            if rule is None:
                counts.accepted += 1
            else:
                counts.refused[rule] = counts.refused.get(rule, 0) + 1
    return counts


def judged(path: Path, sample: Sample) -> str | None:
    """The rule of the gate that refuses the file; None where it is let through, rightly."""
    try:
        source: AdapterSource
        if sample.scheme is None:
            source = open_adapter(path, sample.layout)
        else:
            source = open_quantised(path, sample.layout, sample.scheme, STARTS[sample.layout])
        check_submission(source, STARTS[sample.layout], PLAN.recipe)
    except UntrustedInputError as error:
        assert error.rule.startswith("adapter."), error.rule
        return error.rule
    _require_right(path.read_bytes(), sample, source)
    return None


def _require_right(file: bytes, sample: Sample, source: AdapterSource) -> None:
    """What the gate hands on, against what other readers make of the same bytes."""
    tensors = safetensors.numpy.load(file)
    if sample.scheme is not None:
        tensors = _decoded(tensors, sample)
    handed = tensors_of(source)
    assert {name: each.shape for name, each in handed.items()} == expected_shapes(sample.layout)
    assert handed.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert handed[name].dtype == tensor.dtype == np.float32, name
        assert handed[name].tobytes() == tensor.tobytes(), name
        assert np.isfinite(tensor).all(), name
        assert np.abs(tensor).max() <= MAX_ABSOLUTE_VALUE, name


def _decoded(tensors: dict[str, Any], sample: Sample) -> dict[str, Any]:
    """start + code * scale, value by value."""
    found, scheme = {}, sample.scheme
    assert scheme is not None
    for name, start in tensors_of(STARTS[sample.layout]).items():
        codes, scales = tensors.pop(codes_name(name)), tensors.pop(scales_name(name))
        numbers = codes.view(np.int8) if scheme.codes_per_byte == 1 else _nibbles(codes)
        numbers = numbers[: start.size].astype(np.float32)
        each = np.repeat(scales, scheme.block)[: start.size]
        found[name] = (start.ravel() + numbers * each).reshape(start.shape)
    assert not tensors, sorted(tensors)
    return found


def _nibbles(codes: Any) -> Any:
    pairs = np.stack([codes & 15, codes >> 4], axis=1).ravel().astype(np.int16)
    return np.where(pairs > 7, pairs - 16, pairs)
