"""The filter never forgets, and errs as often as its formula says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.dataset.copyright.block_bloom import (
    BLOCK_BITS,
    MIN_BLOCKS,
    BlockBloom,
    blocks_for,
    build_filter,
    expected_error_rate,
    from_bytes,
    own_error_rate,
    to_bytes,
)

RNG = np.random.default_rng(5)


def hashes(count: int) -> np.ndarray:
    return RNG.integers(0, 2**64, count, dtype=np.uint64)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=300), st.integers(1, 40))
def test_what_was_inserted_is_found(keys: list[int], blocks: int) -> None:
    inserted = np.array(keys, dtype=np.uint64)
    assert build_filter(inserted, blocks).contains(inserted).all()


def test_what_was_inserted_is_found_among_others() -> None:
    inserted = hashes(200_000)
    bloom = build_filter(inserted, blocks_for(len(inserted), 1e-6))
    mixed = np.concatenate((hashes(50_000), inserted, hashes(50_000)))
    found = bloom.contains(mixed)
    assert found[50_000:250_000].all()
    assert found.sum() - 200_000 <= 5


@pytest.mark.parametrize("keys_per_block", [13, 16, 20, 26])
def test_error_rates_of_formula_bits_and_count_agree(keys_per_block: int) -> None:
    blocks = 2000
    bloom = build_filter(hashes(keys_per_block * blocks), blocks)
    expected = expected_error_rate(keys_per_block)
    assert own_error_rate(bloom) == pytest.approx(expected, rel=0.25)
    probes = int(400 / expected) if expected > 1e-4 else 2_000_000
    found = bloom.contains(hashes(probes)).sum()
    # Five standard deviations of the count, and one key of slack.
    wanted = own_error_rate(bloom) * probes
    assert abs(found - wanted) <= 5 * np.sqrt(wanted) + 1


@pytest.mark.parametrize(("error_rate", "bits"), [(1e-4, 23), (1e-5, 31), (1e-6, 40), (1e-8, 66)])
def test_size_is_the_smallest_that_keeps_the_rate(error_rate: float, bits: int) -> None:
    keys = 1_000_000
    blocks = blocks_for(keys, error_rate)
    assert expected_error_rate(keys / blocks) <= error_rate
    assert expected_error_rate(keys / (blocks - 1)) > error_rate
    assert blocks * BLOCK_BITS / keys < bits
    assert blocks_for(1, error_rate) == MIN_BLOCKS


@pytest.mark.parametrize("error_rate", [0.0, 1.0, -1.0])
def test_an_impossible_rate_is_refused(error_rate: float) -> None:
    with pytest.raises(ValueError, match="expected an error rate between 0 and 1"):
        blocks_for(10, error_rate)


def test_rates_of_an_empty_and_of_a_full_filter() -> None:
    empty = build_filter(hashes(0), 4)
    assert own_error_rate(empty) == 0
    assert expected_error_rate(0) == 0
    assert not empty.contains(hashes(1000)).any()
    full = BlockBloom(np.full(32, 2**64 - 1, dtype=np.uint64))
    assert own_error_rate(full) == 1
    assert full.contains(hashes(1000)).all()


def test_the_file_is_the_words_in_little_endian() -> None:
    bloom = build_filter(hashes(100), 16)
    data = to_bytes(bloom)
    assert len(data) == 16 * 64
    assert int.from_bytes(data[:8], "little") == int(bloom.words[0])
    assert np.array_equal(from_bytes(data).words, bloom.words)


@pytest.mark.parametrize("size", [0, 8, 63, 65])
def test_a_file_of_broken_blocks_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="blocks of 64 bytes"):
        from_bytes(bytes(size))
