"""Blockwise codes: half a scale at most, short last blocks, odd counts, the sizes promised."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.adapters.block_quantisation import (
    SCHEMES,
    SMALLEST_SCALE,
    Blocks,
    Scheme,
    dequantise,
    quantise,
)
from data_contracts.adapters.starting_adapter import Float32Array

BOTH = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())


def roundtrip(values: Float32Array, scheme: Scheme) -> tuple[Blocks, Float32Array]:
    blocks = quantise(values, scheme)
    return blocks, dequantise(blocks, values.size, scheme)


def scale_of_each(blocks: Blocks, count: int, scheme: Scheme) -> Float32Array:
    return np.repeat(blocks.scales, scheme.block)[:count]


@BOTH
@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 9000),
    seed=st.integers(0, 2**32),
    exponent=st.integers(-40, 3),
)
def test_nothing_is_off_by_more_than_half_a_scale(
    scheme: Scheme, count: int, seed: int, exponent: int
) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_normal(count) * 10.0**exponent).astype(np.float32)
    blocks, decoded = roundtrip(values, scheme)
    assert blocks.codes.shape == (scheme.code_bytes_of(count),)
    assert blocks.scales.shape == (scheme.blocks_of(count),)
    bound = np.maximum(scale_of_each(blocks, count, scheme) * 0.50001, SMALLEST_SCALE * 127)
    assert (np.abs(decoded.astype(np.float64) - values) <= bound).all()


@BOTH
@pytest.mark.parametrize("blocks", [1, 2])
def test_whole_blocks_have_no_short_one_behind_them(scheme: Scheme, blocks: int) -> None:
    values = np.linspace(-1, 1, blocks * scheme.block, dtype=np.float32)
    found, decoded = roundtrip(values, scheme)
    assert found.scales.shape == (blocks,)
    assert np.abs(decoded - values).max() <= found.scales.max() * 0.50001


@BOTH
def test_the_largest_of_a_block_keeps_its_value_and_zero_stays_zero(scheme: Scheme) -> None:
    values = np.zeros(scheme.block + 3, dtype=np.float32)
    values[5], values[-1] = -0.3, 2.0
    blocks, decoded = roundtrip(values, scheme)
    np.testing.assert_allclose(decoded[[5, -1]], [-0.3, 2.0], rtol=2e-7)
    assert not np.delete(decoded, [5, -1 + len(values)]).any()
    assert blocks.scales.shape == (2,)


@BOTH
def test_each_decoded_value_is_one_float32_product(scheme: Scheme) -> None:
    values = np.random.default_rng(1).standard_normal(201).astype(np.float32)
    blocks, decoded = roundtrip(values, scheme)
    codes = np.rint(decoded / scale_of_each(blocks, 201, scheme)).astype(np.int64)
    assert np.abs(codes).max() == scheme.levels
    np.testing.assert_array_equal(
        decoded, codes.astype(np.float32) * scale_of_each(blocks, 201, scheme)
    )


@BOTH
def test_blocks_whose_scale_would_be_subnormal_are_zeros(scheme: Scheme) -> None:
    values = np.full(10, 190e-45, dtype=np.float32)
    blocks, decoded = roundtrip(values, scheme)
    assert not blocks.scales.any()
    assert not decoded.any()


def test_int4_puts_the_first_value_into_the_low_half() -> None:
    blocks = quantise(np.array([7, -7, 3], dtype=np.float32), SCHEMES["int4"])
    assert blocks.codes.tolist() == [0x97, 0x03]
    assert blocks.scales.tolist() == [1.0]


@BOTH
def test_matrices_are_read_row_by_row_whatever_their_layout(scheme: Scheme) -> None:
    matrix = np.random.default_rng(2).standard_normal((30, 70)).astype(np.float32)
    expected, found = quantise(matrix, scheme), quantise(np.asfortranarray(matrix), scheme)
    np.testing.assert_array_equal(expected.codes, found.codes)
    np.testing.assert_array_equal(expected.scales, found.scales)


@pytest.mark.parametrize(("name", "percent"), [("int8", 25.02), ("int4", 14.06)])
def test_sizes_of_long_tensors(name: str, percent: float) -> None:
    scheme, count = SCHEMES["int8" if name == "int8" else "int4"], 2**20
    size = scheme.code_bytes_of(count) + 4 * scheme.blocks_of(count)
    assert size / (4 * count) * 100 == pytest.approx(percent, abs=0.01)
