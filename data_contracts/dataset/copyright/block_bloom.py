"""A Bloom filter in which one look-up touches one cache line, for whole arrays of keys.

Blocks as in Putze, Sanders and Singler 2007 ("Cache-, hash- and space-efficient Bloom filters"),
split as in Apache Parquet's filter: a block is 8 words, a key sets bits in each of them. Here
a word has 64 bits and a key sets two of them (16 in all), so the block is a cache line of 64 bytes
and a test of one word turns away what would take two tests of single bits.

Guaranteed: a key that was inserted is always found. `expected_error_rate` is exact for ideal hashes
and independent of this code; `own_error_rate` is computed from the bits of a given filter, so a
filter can be judged without believing whoever made it.

The file is the array itself, header-free: 64-bit words, little-endian, 8 to a block.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORDS_PER_BLOCK = 8
WORD_BITS = 64
BLOCK_BITS = WORDS_PER_BLOCK * WORD_BITS
BLOCK_BYTES = BLOCK_BITS // 8
MIN_BLOCKS = 16
MAX_BLOCKS = 1 << 32
"""The block is chosen by 32 bits of the key's hash."""

_CHUNK = 16384
_SALTS = (
    0x9E3779B97F4A7C15,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0xD6E8FEB86659FD93,
    0xA0761D6478BD642F,
    0xE7037ED1A0B428DB,
    0x8EBC6AF09C88C6E3,
    0x589965CC75374CC3,
)
"""One odd multiplier per word; the top 12 bits of the product name the two bits."""


@dataclass(frozen=True)
class BlockBloom:
    """A filter over uint64 hashes; `words` is uint64, 8 for each block."""

    words: NDArray[np.uint64]

    @property
    def blocks(self) -> int:
        """Number of blocks, at most MAX_BLOCKS."""
        return len(self.words) // WORDS_PER_BLOCK

    def contains(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which hashes were inserted; wrongly true at the filter's error rate, never wrongly false.

        All are tested against the first word of their block, and only survivors against the next.
        """
        found = np.zeros(len(hashes), dtype=np.bool_)
        for begin in range(0, len(hashes), _CHUNK):
            left = hashes[begin : begin + _CHUNK]
            firsts = _first_words(left, self.blocks)
            where = np.arange(begin, begin + len(left))
            for word in range(WORDS_PER_BLOCK):
                masks = _masks(left, word)
                kept = np.flatnonzero((self.words[firsts + word] & masks) == masks)
                left, firsts, where = left[kept], firsts[kept], where[kept]
            found[where] = True
        return found


def build_filter(hashes: NDArray[np.uint64], blocks: int) -> BlockBloom:
    """A filter of `blocks` blocks that holds `hashes`."""
    words = np.zeros(blocks * WORDS_PER_BLOCK, dtype=np.uint64)
    for begin in range(0, len(hashes), _CHUNK):
        part = hashes[begin : begin + _CHUNK]
        firsts = _first_words(part, blocks)
        for word in range(WORDS_PER_BLOCK):
            np.bitwise_or.at(words, firsts + word, _masks(part, word))
    return BlockBloom(words)


def blocks_for(keys: int, error_rate: float) -> int:
    """Fewest blocks, at least MIN_BLOCKS, whose expected error rate is `error_rate` or less."""
    if not 0 < error_rate < 1:
        raise ValueError(f"expected an error rate between 0 and 1, found {error_rate}")
    low, high = MIN_BLOCKS, MIN_BLOCKS
    while expected_error_rate(keys / high) > error_rate:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        if expected_error_rate(keys / middle) > error_rate:
            low = middle + 1
        else:
            high = middle
    return high


def expected_error_rate(keys_per_block: float) -> float:
    """Chance that an absent key is found, over Poisson-distributed loads of the blocks.

    With j keys in a block each word had 2j bits thrown at it, and the two bits that are looked up
    are the same one with chance 1/64; words are independent given j.
    """
    return sum(
        weight * _all_words_hit(load) ** WORDS_PER_BLOCK
        for load, weight in _poisson(keys_per_block)
    )


def own_error_rate(bloom: BlockBloom) -> float:
    """Chance that an absent key is found in this very filter: from how full its words are."""
    total = 0.0
    rows = bloom.words.reshape(-1, WORDS_PER_BLOCK)
    for begin in range(0, len(rows), _CHUNK):
        filled = np.bitwise_count(rows[begin : begin + _CHUNK]) / WORD_BITS
        total += float(np.prod(filled * filled, axis=1).sum())
    return total / bloom.blocks


def to_bytes(bloom: BlockBloom) -> bytes:
    """The filter's file."""
    return bloom.words.astype("<u8", copy=False).tobytes()


def from_bytes(data: bytes) -> BlockBloom:
    """The filter in a file of whole blocks; raises ValueError for any other length."""
    blocks, rest = divmod(len(data), BLOCK_BYTES)
    if rest or not 1 <= blocks <= MAX_BLOCKS:
        raise ValueError(f"expected 1 to {MAX_BLOCKS} blocks of {BLOCK_BYTES} bytes")
    return BlockBloom(np.frombuffer(data, dtype="<u8").astype(np.uint64, copy=False))


def _first_words(hashes: NDArray[np.uint64], blocks: int) -> NDArray[np.int64]:
    """Index of the first word of each hash's block: the top 32 bits, scaled without a division."""
    block = ((hashes >> 32) * blocks) >> 32
    return block.astype(np.int64) * WORDS_PER_BLOCK


def _masks(hashes: NDArray[np.uint64], word: int) -> NDArray[np.uint64]:
    product = hashes * _SALTS[word]
    one = np.left_shift(np.uint64(1), product >> 58)
    other = np.left_shift(np.uint64(1), (product >> 52) & 63)
    masks: NDArray[np.uint64] = one | other
    return masks


def _all_words_hit(keys: int) -> float:
    thrown = 2 * keys
    one = 1 - (1 - 1 / WORD_BITS) ** thrown
    both = 1 - 2 * (1 - 1 / WORD_BITS) ** thrown + (1 - 2 / WORD_BITS) ** thrown
    return one / WORD_BITS + both * (1 - 1 / WORD_BITS)


def _poisson(mean: float) -> Iterator[tuple[int, float]]:
    """Loads and their probabilities, as far as they matter."""
    for load in range(int(mean + 12 * math.sqrt(mean) + 30)):
        yield load, math.exp(load * math.log(mean) - mean - math.lgamma(load + 1)) if mean else 0.0
