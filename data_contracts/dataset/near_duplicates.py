"""Signatures by which texts that are nearly alike find each other.

MinHash (Broder 1997) over the set of 5-word shingles of a text: two signatures agree in as large a
share of their 48 places as the sets overlap (Jaccard similarity), up to a standard error of 0.07 or
less. Banding (8 bands of 6 places): two texts of similarity s share a band with probability
1 - (1 - s**6)**8, that is 0.12 at 0.5, 0.63 at 0.7, 0.91 at 0.8 and 0.998 at 0.9.

A text of 1 to 4 words has one shingle, its whole sequence of words. A text without words has the
signature of all `EMPTY`, so texts without words are like each other and like nothing else.

Signatures are not keyed: whoever sees one can test a guess against it, so it stays in the silo.
Values are 32 bits, so sets of more than some 100 million shingles look more alike than they are.
"""

import numpy as np
from numpy.typing import NDArray

from data_contracts.dataset.word_hashes import WordHashes, mixed

SHINGLE_WORDS = 5
BANDS = 8
ROWS_PER_BAND = 6
SIGNATURE_LENGTH = BANDS * ROWS_PER_BAND
EMPTY = 0xFFFFFFFF

_CHUNK_SHINGLES = 8192
"""Shingles in work at a time: what is computed of them stays in the processor's cache."""


def _constants(stream: int, count: int) -> NDArray[np.uint64]:
    """Fixed numbers, the same for everyone, from a counter."""
    return mixed(np.arange(1, count + 1, dtype=np.uint64) + (stream << 32)) | np.uint64(1)


_SHINGLE_MULTIPLIERS = [int(number) for number in _constants(1, SHINGLE_WORDS)]
_PLACES = [
    (int(number) >> 32, int(number) & 0xFFFFFFFF) for number in _constants(2, SIGNATURE_LENGTH)
]
"""Addend and odd multiplier of each place's permutation of the 32-bit numbers."""
_BAND_MULTIPLIERS = _constants(3, SIGNATURE_LENGTH).reshape(BANDS, ROWS_PER_BAND)
_BAND_SALTS = _constants(4, BANDS)


def signatures(words: WordHashes) -> NDArray[np.uint32]:
    """uint32 of shape (texts, 48)."""
    shingles, bounds = _shingles(words)
    result = np.full((SIGNATURE_LENGTH, len(words.counts)), EMPTY, dtype=np.uint32)
    filled = np.flatnonzero(np.diff(bounds))
    firsts = bounds[filled]
    begin = 0
    while begin < len(filled):
        limit = firsts[begin] + _CHUNK_SHINGLES
        end = max(begin + 1, int(np.searchsorted(bounds[filled + 1], limit, side="right")))
        last = bounds[filled[end - 1] + 1]
        starts = firsts[begin:end] - firsts[begin]
        result[:, filled[begin:end]] = _minima(shingles[firsts[begin] : last], starts)
        begin = end
    return np.ascontiguousarray(result.T)


def band_keys(signatures: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """uint64 of shape (texts, 8): texts that share a key in a column are candidates.

    Keys of different bands differ, so that all can live in one table.
    """
    bands = signatures.reshape(-1, BANDS, ROWS_PER_BAND).astype(np.uint64)
    return mixed((bands * _BAND_MULTIPLIERS).sum(axis=2, dtype=np.uint64) + _BAND_SALTS)


def estimated_similarity(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Estimated Jaccard similarity, 0 to 1, of signatures along the last axis."""
    return np.asarray((one == other).mean(axis=-1), dtype=np.float64)


def _minima(shingles: NDArray[np.uint32], starts: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Smallest value of each text under each place's permutation: (48, texts)."""
    result = np.empty((SIGNATURE_LENGTH, len(starts)), dtype=np.uint32)
    permuted = np.empty_like(shingles)
    for place, (addend, multiplier) in enumerate(_PLACES):
        np.multiply(shingles, np.uint32(multiplier), out=permuted)
        permuted += np.uint32(addend)
        np.minimum.reduceat(permuted, starts, out=result[place])
    return result


def _shingles(words: WordHashes) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Shingle hashes text after text, and where each text's begin (one bound more than texts)."""
    counts = words.counts
    sizes = np.where(counts < SHINGLE_WORDS, np.minimum(counts, 1), counts - SHINGLE_WORDS + 1)
    bounds = np.concatenate(([0], np.cumsum(sizes)))
    is_short = (counts > 0) & (counts < SHINGLE_WORDS)
    of_short_text = np.zeros(bounds[-1], dtype=np.bool_)
    of_short_text[bounds[:-1][is_short]] = True
    hashes = np.empty(bounds[-1], dtype=np.uint64)
    hashes[~of_short_text] = _of_windows(words)
    hashes[of_short_text] = _of_short_texts(words, is_short)
    return (mixed(hashes) >> 32).astype(np.uint32), bounds


def _of_windows(words: WordHashes) -> NDArray[np.uint64]:
    count = max(len(words.values) - SHINGLE_WORDS + 1, 0)
    total = np.zeros(count, dtype=np.uint64)
    for index, multiplier in enumerate(_SHINGLE_MULTIPLIERS):
        total += words.values[index : index + count] * multiplier
    return total[words.windows(SHINGLE_WORDS)]


def _of_short_texts(words: WordHashes, is_short: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """The whole sequence of words, as if words of hash 0, which no short word has, followed."""
    starts, counts = words.offsets[:-1][is_short], words.counts[is_short]
    total = np.zeros(len(starts), dtype=np.uint64)
    for index, multiplier in enumerate(_SHINGLE_MULTIPLIERS):
        present = np.flatnonzero(index < counts)
        total[present] += words.values[starts[present] + index] * multiplier
    return total
