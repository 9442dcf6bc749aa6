"""Hostile headers and files of another layout, through the gate for quantised differences."""

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from data_contracts.adapters.adapter_format import (
    MAX_ABSOLUTE_VALUE,
)
from data_contracts.adapters.block_quantisation import Scheme
from data_contracts.adapters.quantised_format import (
    check_quantised,
    codes_name,
    open_quantised,
    scales_name,
)
from data_contracts.errors import UntrustedInputError
from tests.data_contracts.quantised_samples import (
    A_NAME,
    BOTH,
    INT4,
    INT8,
    LAYOUT,
    START,
    content,
    rule_of,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "quantised.safetensors"


@BOTH
def test_other_names_dtypes_and_shapes(path: Path, scheme: Scheme) -> None:
    good = content(scheme)
    name = codes_name(A_NAME)
    missing = {n: t for n, t in good.items() if n != name}
    assert rule_of(path, save(missing), scheme) == "wrong_names"
    assert rule_of(path, save(missing | {"../up": good[name]}), scheme) == "wrong_names"
    other = np.uint8 if scheme is INT8 else np.int8
    assert rule_of(path, save(good | {name: good[name].view(other)}), scheme) == "wrong_dtype"
    half = good[scales_name(A_NAME)].view(np.uint16)
    assert rule_of(path, save(good | {scales_name(A_NAME): half}), scheme) == "wrong_dtype"
    assert rule_of(path, save(good | {name: good[name][None]}), scheme) == "wrong_shape"
    assert rule_of(path, save(good | {name: good[name][:-1]}), scheme) == "wrong_shape"


def test_one_scheme_does_not_pass_for_the_other(path: Path) -> None:
    assert rule_of(path, save(content(INT8)), INT4) in {"too_large", "wrong_dtype"}
    assert rule_of(path, save(content(INT4)), INT8) == "wrong_dtype"


def parts(scheme: Scheme) -> tuple[dict[str, Any], bytes]:
    raw = save(content(scheme))
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def joined(header: dict[str, Any] | bytes, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_gaps_overlaps_and_absurd_offsets(path: Path) -> None:
    header, data = parts(INT8)
    for entry in header.values():
        entry["data_offsets"] = [offset + 1 for offset in entry["data_offsets"]]
    assert rule_of(path, joined(header, b"\0" + data), INT8) == "gap_or_overlap"
    header, data = parts(INT8)
    absurd: tuple[Any, ...] = ([0, 1], [-21, 0], [0.0, 21.0], None, [True, 22], [0])
    for offsets in absurd:
        header[codes_name(A_NAME)]["data_offsets"] = offsets
        assert rule_of(path, joined(header, data), INT8) in {"bad_header", "gap_or_overlap"}


def test_headers_and_sizes_that_do_not_fit(path: Path) -> None:
    header, data = parts(INT8)
    raw = joined(header, data)
    doubled = json.dumps(header)[:-1] + f", {json.dumps(codes_name(A_NAME))}: {{}}}}"
    assert rule_of(path, joined(doubled.encode(), data), INT8) == "bad_header"
    assert rule_of(path, raw[:5], INT8) == "truncated"
    assert rule_of(path, raw[:-1], INT8) == "wrong_size"
    assert rule_of(path, raw + b"\0", INT8) == "wrong_size"
    assert rule_of(path, struct.pack("<Q", 2**62) + raw[8:], INT8) == "header_too_large"
    header[codes_name(A_NAME)]["more"] = 1
    assert rule_of(path, joined(header, data), INT8) == "bad_header"


def test_a_sparse_giant_costs_nothing(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**36)
    tracemalloc.start()
    with pytest.raises(UntrustedInputError, match="at most"):
        check_quantised(path, LAYOUT, INT8, START)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_file_cut_after_it_was_opened(path: Path) -> None:
    path.write_bytes(save(content(INT8)))
    adapter = open_quantised(path, LAYOUT, INT8, START)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UntrustedInputError, match="bytes") as caught:
        adapter.check()
    assert caught.value.rule == "adapter.truncated"


@BOTH
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_or_harmless(
    scheme: Scheme, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Only UntrustedInputError ever comes out, and what passes is finite, bounded, well shaped."""
    path = tmp_path_factory.getbasetemp() / f"damaged-{scheme.name}.safetensors"
    raw = bytearray(save(content(scheme)))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    try:
        adapter = check_quantised(path, LAYOUT, scheme, START)
    except UntrustedInputError:
        return
    for target, a, b in adapter.modules():
        assert a.shape == (3, target.in_features)
        assert max(np.abs(a).max(), np.abs(b).max()) <= MAX_ABSOLUTE_VALUE
