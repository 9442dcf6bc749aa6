"""The gate for quantised differences: exact layout, valid codes and scales, bounds, no zeros."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from data_contracts.adapters.adapter_format import (
    MAX_ABSOLUTE_VALUE,
    adapter_bytes_limit,
    expected_shapes,
)
from data_contracts.adapters.block_quantisation import (
    SCHEMES,
    Scheme,
    SchemeName,
    dequantise,
    quantise,
)
from data_contracts.adapters.quantised_format import (
    QuantisedFile,
    check_quantised,
    codes_name,
    quantised_bytes_limit,
    quantised_entries,
    scales_name,
)
from data_contracts.adapters.starting_adapter import (
    InitialAdapter,
    narrowed,
    tensors_of,
)
from data_contracts.adapters.tensor_layout import payload_bytes, safetensors_header
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from tests.data_contracts.quantised_samples import (
    A_NAME,
    B_NAME,
    BOTH,
    FIRST,
    INT4,
    INT8,
    LAYOUT,
    NAMES,
    SECOND,
    START,
    Constant,
    content,
    differences,
    rule_of,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "quantised.safetensors"


@BOTH
def test_a_good_file_is_the_start_plus_what_it_decodes_to(path: Path, scheme: Scheme) -> None:
    path.write_bytes(save(content(scheme)))
    adapter = check_quantised(path, LAYOUT, scheme, START)
    assert isinstance(adapter, QuantisedFile)
    start = tensors_of(START)
    for name, value in tensors_of(adapter).items():
        blocks = quantise(differences()[name], scheme)
        decoded = dequantise(blocks, value.size, scheme).reshape(value.shape)
        np.testing.assert_array_equal(value, start[name] + decoded)
        assert value.dtype == np.float32
    assert [target for target, _, _ in adapter.modules()] == list(LAYOUT.targets)


def test_a_start_of_the_whole_run_is_narrowed(path: Path) -> None:
    changes = {"rank": 5, "alpha": 20, "targets": (SECOND, FIRST)}
    wide = InitialAdapter(LAYOUT.model_copy(update=changes))
    path.write_bytes(save(content(INT8)))
    found = check_quantised(path, LAYOUT, INT8, wide)
    expected = check_quantised(path, LAYOUT, INT8, narrowed(wide, LAYOUT))
    np.testing.assert_array_equal(found.module(FIRST)[0], expected.module(FIRST)[0])


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scales_that_are_not_finite(path: Path, scheme: Scheme, value: float) -> None:
    entries = content(scheme)
    entries[scales_name(B_NAME)][0] = value
    assert rule_of(path, save(entries), scheme) == "not_finite"


@BOTH
@pytest.mark.parametrize("value", [-1e-3, 1e-40, -1e-40])
def test_scales_below_zero_or_subnormal(path: Path, scheme: Scheme, value: float) -> None:
    entries = content(scheme)
    entries[scales_name(NAMES[3])][-1] = value
    assert rule_of(path, save(entries), scheme) == "bad_scale"


@BOTH
def test_scales_that_reach_too_far(path: Path, scheme: Scheme) -> None:
    entries = content(scheme)
    largest = np.float32(MAX_ABSOLUTE_VALUE) / np.float32(scheme.levels)
    entries[scales_name(B_NAME)][0] = np.nextafter(largest, np.float32(np.inf))
    assert rule_of(path, save(entries), scheme) == "value_too_large"


@BOTH
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_that_reach_too_far(path: Path, scheme: Scheme, sign: int) -> None:
    start = Constant(sign * MAX_ABSOLUTE_VALUE)
    assert rule_of(path, save(content(scheme)), scheme, start) == "value_too_large"


def test_the_code_that_no_encoder_writes(path: Path) -> None:
    entries = content(INT8)
    entries[codes_name(A_NAME)][3] = -128
    assert rule_of(path, save(entries), INT8) == "bad_code"


@pytest.mark.parametrize(("byte", "mask"), [(0x80, 0x0F), (0x08, 0xF0)])
def test_the_half_byte_that_no_encoder_writes(path: Path, byte: int, mask: int) -> None:
    entries = content(INT4)
    codes = entries[codes_name(A_NAME)]
    codes[3] = (int(codes[3]) & mask) | byte
    assert rule_of(path, save(entries), INT4) == "bad_code"


def test_padding_that_is_not_zero(path: Path) -> None:
    entries = content(INT4)
    assert expected_shapes(LAYOUT)[A_NAME] == (3, 7)
    entries[codes_name(A_NAME)][-1] |= 0x10
    assert rule_of(path, save(entries), INT4) == "bad_padding"


@BOTH
def test_a_difference_of_zero(path: Path, scheme: Scheme) -> None:
    zeros = {name: np.zeros_like(tensor) for name, tensor in content(scheme).items()}
    assert rule_of(path, save(zeros), scheme, Constant(1)) == "zero_delta"
    scales_only = {n: t * n.endswith("scales") for n, t in content(scheme).items()}
    scales_only = {n: t.astype(zeros[n].dtype) for n, t in scales_only.items()}
    assert rule_of(path, save(scales_only), scheme, Constant(1)) == "zero_delta"
    zeros[codes_name(A_NAME)][0] = 1
    zeros[scales_name(A_NAME)][0] = 1e-3
    assert rule_of(path, save(zeros), scheme, START) == "zero_delta"
    path.write_bytes(save(zeros))
    assert check_quantised(path, LAYOUT, scheme, Constant(1))


@BOTH
def test_our_own_header_is_read_by_safetensors_too(path: Path, scheme: Scheme) -> None:
    entries, expected = quantised_entries(LAYOUT, scheme), content(scheme)
    data = b"".join(expected[name].tobytes() for name in entries)
    path.write_bytes(safetensors_header(entries) + data)
    found = load_file(path)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert check_quantised(path, LAYOUT, scheme, START)
    assert path.stat().st_size <= quantised_bytes_limit(LAYOUT, scheme)


@pytest.mark.parametrize(("name", "percent"), [("int8", 25.03), ("int4", 14.06)])
def test_bytes_of_seventeen_million_parameters(name: SchemeName, percent: float) -> None:
    """32 layers of 4 modules of 4096 x 4096 at rank 16, header included."""
    targets = tuple(
        AdapterTarget(module=f"model.layers.{n // 4}.m{n % 4}", in_features=4096, out_features=4096)
        for n in range(128)
    )
    layout = AdapterLayout(rank=16, alpha=32, seed=1, targets=targets)
    entries = quantised_entries(layout, SCHEMES[name])
    size = len(safetensors_header(entries)) + payload_bytes(entries)
    whole = sum(4 * rows * columns for rows, columns in expected_shapes(layout).values())
    assert size / whole * 100 == pytest.approx(percent, abs=0.5)
    assert quantised_bytes_limit(layout, SCHEMES[name]) < adapter_bytes_limit(layout) * 0.27
