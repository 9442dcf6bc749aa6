"""Keyed tile hashes against SipHash's published vectors and a plain reference."""

import random

import numpy as np
import pytest

from data_contracts.dataset.copyright.tiles import (
    WORDS_PER_TILE,
    TileKey,
    derive_tile_key,
    probe_tiles,
    registry_tiles,
    siphash,
)
from data_contracts.dataset.word_hashes import WordHashes, hash_words
from data_contracts.errors import DataStewardError
from tests.data_contracts.dataset.copyright.samples import KEY, salad

MASK = (1 << 64) - 1


def rotated(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & MASK


def reference_siphash(message: int, key: tuple[int, int]) -> int:
    """SipHash-2-4 of one 8-byte message, as in the paper's section 2."""
    v = [key[0] ^ 0x736F6D6570736575, key[1] ^ 0x646F72616E646F6D]
    v += [key[0] ^ 0x6C7967656E657261, key[1] ^ 0x7465646279746573]

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & MASK
            v[2] = (v[2] + v[3]) & MASK
            v[1] = rotated(v[1], 13) ^ v[0]
            v[3] = rotated(v[3], 16) ^ v[2]
            v[0] = rotated(v[0], 32)
            v[2] = (v[2] + v[1]) & MASK
            v[0] = (v[0] + v[3]) & MASK
            v[1] = rotated(v[1], 17) ^ v[2]
            v[3] = rotated(v[3], 21) ^ v[0]
            v[2] = rotated(v[2], 32)

    for block in (message, 8 << 56):
        v[3] ^= block
        rounds(2)
        v[0] ^= block
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def reference_tile(values: list[int], key: TileKey) -> int:
    products = (m * v for m, v in zip(key.multipliers, values, strict=True))
    return reference_siphash((key.offset + sum(products)) & MASK, key.siphash)


def texts_of(*counts: int) -> WordHashes:
    rng = random.Random(3)
    return hash_words([" ".join(salad(rng, count)) for count in counts])


def test_siphash_is_that_of_the_published_vectors() -> None:
    message = np.array([0x0706050403020100], dtype=np.uint64)
    key = (0x0706050403020100, 0x0F0E0D0C0B0A0908)
    assert int(siphash(message, key)[0]) == 0x93F5F5799A932462


def test_siphash_of_many_is_the_reference_of_each() -> None:
    messages = np.random.default_rng(1).integers(0, 2**64, 20_001, dtype=np.uint64)
    before = messages.copy()
    hashes = siphash(messages, (1, MASK))
    for index in (0, 1, 8191, 8192, 8193, 20_000):
        assert int(hashes[index]) == reference_siphash(int(messages[index]), (1, MASK))
    assert np.array_equal(messages, before)


def test_a_probe_hashes_every_run_that_lies_in_one_text() -> None:
    words, key = texts_of(12, 13, 0, 20, 9000, 5, 27), derive_tile_key(KEY)
    starts, hashes = probe_tiles(words, key)
    assert starts.tolist() == words.windows(WORDS_PER_TILE).tolist()
    assert len(starts) == 0 + 1 + 0 + 8 + 8988 + 0 + 15
    for index in (0, 1, 8, 9, 8200, len(starts) - 1):
        run = [int(v) for v in words.values[starts[index] : starts[index] + WORDS_PER_TILE]]
        assert int(hashes[index]) == reference_tile(run, key)


def test_a_registry_has_every_thirteenth_run_of_each_text() -> None:
    words, key = texts_of(12, 13, 25, 26, 0, 40), derive_tile_key(KEY)
    starts, hashes = probe_tiles(words, key)
    looked_up = dict(zip(starts.tolist(), hashes.tolist(), strict=True))
    firsts = [12, 25, 50, 63, 76, 89, 102]
    assert registry_tiles(words, key).tolist() == [looked_up[first] for first in firsts]


@pytest.mark.parametrize("counts", [(), (0,), (12,), (12, 12, 12)])
def test_texts_without_a_run_have_no_tile(counts: tuple[int, ...]) -> None:
    words, key = texts_of(*counts), derive_tile_key(KEY)
    assert len(registry_tiles(words, key)) == 0
    assert len(probe_tiles(words, key)[1]) == 0


def test_order_of_words_matters() -> None:
    words = [f"w{n}" for n in range(13)]
    swapped = [words[1], words[0], *words[2:]]
    tiles = registry_tiles(hash_words([" ".join(words), " ".join(swapped)]), derive_tile_key(KEY))
    assert tiles[0] != tiles[1]


def test_another_key_gives_other_tiles_and_another_id() -> None:
    words = texts_of(1300)
    one, other = derive_tile_key(KEY), derive_tile_key(KEY[:-1] + b"l")
    assert not np.isin(registry_tiles(words, one), registry_tiles(words, other)).any()
    assert one.id != other.id
    assert derive_tile_key(KEY) == one


def test_a_key_does_not_show_itself() -> None:
    key = derive_tile_key(KEY)
    assert repr(key) == f"TileKey(id='{key.id}')"
    numbers = {*key.multipliers, key.offset, *key.siphash}
    assert len(numbers) == 16
    assert not any(f"{number:016x}" in key.id for number in numbers)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(DataStewardError, match=r"expected 16 random bytes or more; found 15 bytes"):
        derive_tile_key(b"k" * 15)
