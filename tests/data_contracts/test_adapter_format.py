"""The gate for adapters: only the exact layout of the plan, finite, non-zero, within bounds."""

import json
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from data_contracts.adapters.adapter_format import (
    AdapterFile,
    adapter_bytes_limit,
    check_adapter,
    expected_shapes,
    open_adapter,
)
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

LAYOUT = AdapterLayout(
    rank=2,
    alpha=4,
    seed=1,
    targets=(
        AdapterTarget(module="model.layers.0.q_proj", in_features=6, out_features=4),
        AdapterTarget(module="model.layers.0.up_proj", in_features=6, out_features=8),
    ),
)
NAMES = list(expected_shapes(LAYOUT))
A_NAME, B_NAME = NAMES[:2]
Header = dict[str, Any]


def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = expected_shapes(LAYOUT)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def parts() -> tuple[Header, bytes]:
    """Header and data of a valid file."""
    raw = save(tensors())
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def joined(header: Header | bytes, data: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def rule_of(path: Path, raw: bytes) -> str:
    path.write_bytes(raw)
    with pytest.raises(UntrustedInputError) as caught:
        check_adapter(path, LAYOUT)
    return caught.value.rule


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adapter.safetensors"


def test_a_good_adapter_passes_with_its_values(path: Path) -> None:
    save_file(tensors(), path, metadata={"format": "pt"})
    adapter = check_adapter(path, LAYOUT)
    assert isinstance(adapter, AdapterFile)
    for target, a, b in adapter.modules():
        np.testing.assert_array_equal(
            a, tensors()[f"base_model.model.{target.module}.lora_A.weight"]
        )
        assert a.dtype == np.float32
        assert b.shape == (target.out_features, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_one_value_that_is_not_finite(path: Path, name: str, value: float) -> None:
    content = tensors()
    content[name][-1, -1] = value
    assert rule_of(path, save(content)) == "adapter.not_finite"


def test_an_adapter_that_adds_nothing(path: Path) -> None:
    content = {n: t * (0 if "lora_B" in n else 1) for n, t in tensors().items()}
    assert rule_of(path, save(content)) == "adapter.zero_delta"
    content[B_NAME][0, 0] = 1e-30
    path.write_bytes(save(content))
    assert check_adapter(path, LAYOUT)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_other_dtypes(path: Path, dtype: type) -> None:
    content: dict[str, np.ndarray] = tensors()
    content[A_NAME] = content[A_NAME].astype(dtype)
    assert rule_of(path, save(content)) in {"adapter.wrong_dtype", "adapter.too_large"}


@pytest.mark.parametrize("shape", [(6, 2), (12,), (2, 6, 1), (1, 12)])
def test_other_shapes_of_the_same_size(path: Path, shape: tuple[int, ...]) -> None:
    content = tensors()
    content[A_NAME] = content[A_NAME].reshape(shape)
    assert rule_of(path, save(content)) == "adapter.wrong_shape"


@pytest.mark.parametrize("name", ["../../etc/passwd", "extra", "model.layers.0.q_proj", "\ud800"])
def test_other_names(path: Path, name: str) -> None:
    header, data = parts()
    header[name] = header.pop(A_NAME)
    assert rule_of(path, joined(header, data)) == "adapter.wrong_names"


def test_missing_and_additional_tensors(path: Path) -> None:
    header, data = parts()
    entry = header.pop(A_NAME)
    assert rule_of(path, joined(header, data)) == "adapter.wrong_names"
    header |= {A_NAME: entry, "more": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}
    assert rule_of(path, joined(header, data)) == "adapter.wrong_names"


def test_duplicate_names(path: Path) -> None:
    header, data = parts()
    text = json.dumps(header)[:-1] + f", {json.dumps(A_NAME)}: {json.dumps(header[A_NAME])}}}"
    assert rule_of(path, joined(text.encode(), data)) == "adapter.bad_header"


@pytest.mark.parametrize("entry", [
    {"shape": [0, 2**40]}, {"shape": [2**40, 2**40]}, {"shape": [-2, -6]}, {"shape": "2,6"},
    {"shape": None}, {"shape": [2, 2**5000]},
])  # fmt: skip
def test_absurd_shapes(path: Path, entry: Header) -> None:
    header, data = parts()
    header[A_NAME] |= entry
    rule = "adapter.header_too_large"
    try:
        raw = joined(header, data)
    except ValueError:
        text = json.dumps(header | {A_NAME: "HUGE"}).replace('"HUGE"', "9" * 5000)
        assert rule_of(path, joined(text.encode(), data)) in {rule, "adapter.bad_header"}
        return
    assert rule_of(path, raw) == "adapter.wrong_shape"


@pytest.mark.parametrize("offsets", [
    [0, 47], [0, 49], [-48, 0], [48, 0], [0.0, 48.0], ["0", "48"], [True, 49], [0, 48, 96], None,
    [2**63, 2**63 + 48],
])  # fmt: skip
def test_absurd_offsets(path: Path, offsets: Any) -> None:
    header, data = parts()
    header[A_NAME]["data_offsets"] = offsets
    assert rule_of(path, joined(header, data)) in {"adapter.bad_header", "adapter.gap_or_overlap"}


@pytest.mark.parametrize(
    "spelling",
    ["[2.0,6.0]", "[2,6.0]", "[2e0,6]", "[2,6E0]", "[2,-0,6]", '["2",6]', "[[2],6]"],
)
def test_shapes_that_only_equal_the_right_one(path: Path, spelling: str) -> None:
    header, data = parts()
    text = json.dumps(header | {A_NAME: header[A_NAME] | {"shape": "HERE"}})
    rule = rule_of(path, joined(text.replace('"HERE"', spelling).encode(), data))
    assert rule in {"adapter.bad_header", "adapter.wrong_shape"}


def test_true_is_not_one(path: Path) -> None:
    """To Python [True, 6] == [1, 6]."""
    narrow = LAYOUT.model_copy(update={"rank": 1})
    raw = save({n: np.ones(s, np.float32) for n, s in expected_shapes(narrow).items()})
    path.write_bytes(raw)
    assert check_adapter(path, narrow)
    (length,) = struct.unpack("<Q", raw[:8])
    header = raw[8 : 8 + length].replace(b"[1,6]", b"[true,6]", 1)
    path.write_bytes(joined(header, raw[8 + length :]))
    with pytest.raises(UntrustedInputError) as caught:
        check_adapter(path, narrow)
    assert caught.value.rule == "adapter.wrong_shape"


@pytest.mark.parametrize("spelling", ["-0", "0.0", "0e5", "false", '"0"', "00"])
def test_offsets_that_only_equal_the_right_ones(path: Path, spelling: str) -> None:
    header, data = parts()
    first = next(name for name in NAMES if header[name]["data_offsets"][0] == 0)
    end = header[first]["data_offsets"][1]
    text = json.dumps(header | {first: header[first] | {"data_offsets": "HERE"}})
    raw = joined(text.replace('"HERE"', f"[{spelling},{end}]").encode(), data)
    assert rule_of(path, raw) == "adapter.bad_header"


@pytest.mark.parametrize(
    "metadata",
    [
        '{"format":1}',
        '{"format":null}',
        '{"format":true}',
        '{"format":["pt"]}',
        '{"format":{"a":"b"}}',
        '{"format":"\\ud800"}',
        '{"\\ud800":"pt"}',
        "[]",
        "null",
        '"pt"',
        "0",
    ],
)
def test_metadata_that_is_not_text_under_text(path: Path, metadata: str) -> None:
    header, data = parts()
    header.pop("__metadata__", None)
    text = f'{{"__metadata__":{metadata},{json.dumps(header)[1:]}'
    assert rule_of(path, joined(text.encode(), data)) == "adapter.bad_metadata"


@pytest.mark.parametrize("metadata", ['{"a":1,"a":"x"}', '{"a":2.0}', '{"a":NaN}', '{"a":1e999}'])
def test_metadata_that_two_readers_read_differently(path: Path, metadata: str) -> None:
    header, data = parts()
    text = f'{{"__metadata__":{metadata},{json.dumps(header)[1:]}'
    assert rule_of(path, joined(text.encode(), data)) == "adapter.bad_header"


@pytest.mark.parametrize(
    ("before", "behind"),
    [(" ", ""), ("\n", ""), ("\ufeff", ""), ("", "\n"), ("", "\t "), ("", "\0")],
)
def test_a_header_is_the_object_and_spaces_behind_it(path: Path, before: str, behind: str) -> None:
    header, data = parts()
    text = json.dumps(header)
    path.write_bytes(joined(f"{text}   ".encode(), data))
    assert check_adapter(path, LAYOUT)
    raw = joined(f"{before}{text}{behind}".encode(), data)
    assert rule_of(path, raw) == "adapter.bad_header"


def test_overlaps_and_gaps(path: Path) -> None:
    header, data = parts()
    first, second = header[A_NAME]["data_offsets"], header[NAMES[2]]["data_offsets"]
    header[A_NAME]["data_offsets"] = second
    assert first[1] - first[0] == second[1] - second[0]
    assert rule_of(path, joined(header, data)) == "adapter.gap_or_overlap"
    header, data = parts()
    for name in NAMES:
        header[name]["data_offsets"] = [offset + 4 for offset in header[name]["data_offsets"]]
    assert rule_of(path, joined(header, b"\0" * 4 + data)) == "adapter.gap_or_overlap"


@pytest.mark.parametrize("field", ["dtype", "shape", "data_offsets"])
def test_entries_lack_or_add_nothing(path: Path, field: str) -> None:
    header, data = parts()
    value = header[A_NAME].pop(field)
    assert rule_of(path, joined(header, data)) == "adapter.bad_header"
    header[A_NAME] |= {field: value, "more": 1}
    assert rule_of(path, joined(header, data)) == "adapter.bad_header"


def test_truncated_and_trailing_bytes(path: Path) -> None:
    raw = save(tensors())
    assert rule_of(path, b"") == "adapter.truncated"
    assert rule_of(path, raw[:7]) == "adapter.truncated"
    assert rule_of(path, raw[:30]) == "adapter.bad_header"
    assert rule_of(path, raw[:-1]) == "adapter.wrong_size"
    assert rule_of(path, raw + b"\0") == "adapter.wrong_size"


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 3000, b"{}" * 2, b'{"a":NaN}']
)
def test_headers_that_are_no_object(path: Path, text: bytes) -> None:
    rule = rule_of(path, joined(text, b""))
    assert rule in {"adapter.bad_header", "adapter.wrong_names"}


def test_a_header_bomb_costs_neither_time_nor_memory(path: Path) -> None:
    """1.4 million empty tensors take safetensors' own reader seconds and gigabytes."""
    entry = b'"%07d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
    bomb = b"{" + b"".join(entry % n for n in range(200_000))[:-1] + b"}"
    path.write_bytes(joined(bomb, b""))
    assert_cheap(path, "adapter.too_large")


@pytest.mark.parametrize("length", [2**40, 2**63, 2**64 - 1, 100_000])
def test_a_header_that_claims_to_be_huge(path: Path, length: int) -> None:
    path.write_bytes(joined(b"{}", b"", length))
    assert_cheap(path, "adapter.header_too_large")


def test_a_sparse_giant_file_is_refused_by_its_size(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**36)
    assert_cheap(path, "adapter.too_large")


def assert_cheap(path: Path, rule: str) -> None:
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(UntrustedInputError) as caught:
        check_adapter(path, LAYOUT)
    seconds, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.rule == rule
    assert seconds < 1
    assert peak < 1_000_000


def test_the_size_limit_leaves_room_for_what_safetensors_writes(path: Path) -> None:
    save_file(tensors(), path, metadata={"format": "pt", "note": "x" * 1000})
    assert path.stat().st_size <= adapter_bytes_limit(LAYOUT)
    assert open_adapter(path, LAYOUT)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_harmless(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Only UntrustedInputError ever comes out, and what passes is finite and of the right shape."""
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    raw = bytearray(save(tensors()))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        adapter = check_adapter(path, LAYOUT)
    except UntrustedInputError:
        return
    for target, a, b in adapter.modules():
        assert a.shape == (2, target.in_features)
        assert np.isfinite(a).all()
        assert np.isfinite(b).all()
