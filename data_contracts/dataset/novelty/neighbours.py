"""Whether synthetic texts lie nearer to what was trained on than to what was held out.

A text is a vector of its words and pairs of words, hashed to 4096 numbers with signs (Weinberger et
al. 2009) and weighed by how few of the silo's texts have them; near is what has a large cosine. No
model is asked, so paraphrases in other words are not near here.

Held-out records are of the same kind and were never shown to whatever wrote the texts. Were nothing
remembered, the nearest of all the silo's records would be one of training as often as records are:
the share p0 = train / (train + held-out) is what chance gives, whatever their numbers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from data_contracts.dataset.word_hashes import WordHashes, mixed

Vectors = NDArray[np.float32]

DIMENSIONS = 4096
SHARE = 5
"""The percentile of ratios that is told: copies are few, and lie at the lower end."""
_CHUNK = 1024
_PAIR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Neighbours:
    """Of `texts` synthetic ones `nearer` have their nearest record in training, where chance gives
    `expected` of all (0 to 1), and as many or more with the probability `chance`.

    `ratio` and `heldout_ratio`: 5th percentiles of the distance to the nearest training record over
    that to the second nearest, of the texts and of held-out records; near 0 is a copy.
    """

    texts: int
    nearer: int
    expected: float
    chance: float
    ratio: float
    heldout_ratio: float


def find_neighbours(texts: WordHashes, train: WordHashes, heldout: WordHashes) -> Neighbours:
    """Raises ValueError where there are no texts, no held-out or fewer than two training ones."""
    sizes = [len(words.counts) for words in (texts, train, heldout)]
    if min(sizes[0], sizes[2]) < 1 or sizes[1] < 2:
        raise ValueError(f"expected texts, two or more to train on and some held out: {sizes}")
    weights = _weights((train, heldout))
    of_texts, of_train, of_heldout = (_vectors(w, weights) for w in (texts, train, heldout))
    first, second = _two_nearest(of_texts, of_train)
    other, _ = _two_nearest(of_texts, of_heldout)
    # What lies as near to both is of neither, and counts as chance would have it: half.
    nearer = int((first > other).sum() + (first == other).sum() // 2)
    expected = sizes[1] / (sizes[1] + sizes[2])
    return Neighbours(
        texts=sizes[0],
        nearer=nearer,
        expected=expected,
        chance=float(binomtest(nearer, sizes[0], expected, alternative="greater").pvalue),
        ratio=_low(first, second),
        heldout_ratio=_low(*_two_nearest(of_heldout, of_train)),
    )


def _low(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The percentile of the ratios of distances, from the two largest cosines."""
    distances = [np.sqrt(np.maximum(0.0, 2 - 2 * cosine)) for cosine in (first, second)]
    ratios = distances[0] / np.maximum(distances[1], 1e-6)
    return float(np.percentile(np.minimum(ratios, 1.0), SHARE))


def _two_nearest(texts: Vectors, of: Vectors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two largest cosines of each text to rows of `of`; the second is -1 where there is one."""
    best = np.full((2, len(texts)), -1.0)
    for begin in range(0, len(texts), _CHUNK):
        some = slice(begin, begin + _CHUNK)
        for first in range(0, len(of), _CHUNK):
            # Rounded, so that texts that are the same are equally near whatever stands beside them.
            cosines = np.round(of[first : first + _CHUNK] @ texts[some].T, 5)
            candidates = np.concatenate([best[:, some], cosines])
            best[:, some] = -np.partition(-candidates, 1, axis=0)[:2]
    return best[0], best[1]


def _weights(sets: tuple[WordHashes, WordHashes]) -> Vectors:
    """How much each of the numbers counts: the logarithm of how few texts have it (idf)."""
    seen, texts = np.zeros(DIMENSIONS), 0
    for words in sets:
        for begin in range(0, len(words.counts), _CHUNK):
            rows, columns, _ = _entries(words, begin)
            pairs = np.unique(rows * DIMENSIONS + columns)
            seen += np.bincount(pairs % DIMENSIONS, minlength=DIMENSIONS)
        texts += len(words.counts)
    weights: Vectors = np.log((1 + texts) / (1 + seen)).astype(np.float32) + 1
    return weights


def _vectors(words: WordHashes, weights: Vectors) -> Vectors:
    """Rows of length 1 (texts x 4096); of a text without words 0."""
    parts = [_rows(words, begin, weights) for begin in range(0, max(1, len(words.counts)), _CHUNK)]
    return np.concatenate(parts)


def _rows(words: WordHashes, begin: int, weights: Vectors) -> Vectors:
    rows, columns, signs = _entries(words, begin)
    count = min(_CHUNK, len(words.counts) - begin)
    places = rows * DIMENSIONS + columns
    flat = np.bincount(places, weights=signs, minlength=count * DIMENSIONS)
    matrix = flat.reshape(count, DIMENSIONS).astype(np.float32) * weights
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    found: Vectors = matrix / np.maximum(norms, np.float32(1e-9))
    return found


def _entries(
    words: WordHashes, begin: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Row, column and sign of each word and pair of words of up to 1024 texts from `begin` on."""
    end = min(begin + _CHUNK, len(words.counts))
    first, last = words.offsets[begin], words.offsets[end]
    values = words.values[first:last]
    rows = np.repeat(np.arange(end - begin), words.counts[begin:end])
    is_pair = rows[1:] == rows[:-1]
    pairs = mixed(values[:-1] * _PAIR + values[1:])[is_pair]
    hashes = mixed(np.concatenate([values, pairs]))
    columns = (hashes % DIMENSIONS).astype(np.int64)
    signs = np.where(hashes >> 63, 1.0, -1.0)
    return np.concatenate([rows, rows[1:][is_pair]]).astype(np.int64), columns, signs
