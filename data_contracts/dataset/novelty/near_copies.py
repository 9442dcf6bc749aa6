"""Texts that are nearly one of the silo's own, in other words at some places: MinHash similarity.

As for duplicates within a set (`near_duplicates`): bands find candidates, signatures say how alike
they are. What two texts of similarity s have a chance of sharing a band says that module.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_contracts.dataset.near_duplicates import band_keys, estimated_similarity, signatures
from data_contracts.dataset.word_hashes import WordHashes

_CHUNK_TEXTS = 256


def highest_similarity(
    texts: WordHashes, own: WordHashes, units: Sequence[int], common: int
) -> NDArray[np.float64]:
    """Of each text the highest estimated Jaccard similarity to one of `own`, 0 without a candidate.

    A text that texts of `common` units or more of `own` are like in every place of a signature is
    nobody's, such as an answer of one word, and is compared with none. Texts without words are like
    nothing.
    """
    found = np.zeros(len(texts.counts), dtype=np.float64)
    own_signatures = signatures(own)
    kept = np.flatnonzero((own.counts > 0) & ~_is_common(own_signatures, units, common))
    if not len(kept):
        return found
    own_signatures = own_signatures[kept]
    index = _Index(band_keys(own_signatures))
    own_of_texts = signatures(texts)
    keys = band_keys(own_of_texts)
    for place in np.flatnonzero(texts.counts > 0):
        candidates = index.sharing(keys[place])
        for begin in range(0, len(candidates), _CHUNK_TEXTS):
            some = own_signatures[candidates[begin : begin + _CHUNK_TEXTS]]
            alike = estimated_similarity(some, own_of_texts[place])
            found[place] = max(found[place], float(alike.max()))
    return found


class _Index:
    """Which texts have a key, over all bands; keys of different bands differ."""

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        order = np.argsort(keys, axis=None, kind="stable")
        self._keys, self._texts = keys.reshape(-1)[order], order // keys.shape[1]

    def sharing(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Texts that have one of `keys`, each once."""
        begins = np.searchsorted(self._keys, keys, side="left")
        ends = np.searchsorted(self._keys, keys, side="right")
        parts = [self._texts[a:b] for a, b in zip(begins, ends, strict=True)]
        return np.unique(np.concatenate(parts))


def _is_common(rows: NDArray[np.uint32], units: Sequence[int], common: int) -> NDArray[np.bool_]:
    """Which rows `common` units or more have, the very same."""
    _, same = np.unique(rows, axis=0, return_inverse=True)
    pairs = np.unique(np.stack([same.reshape(-1), np.asarray(units)]), axis=1)
    return np.asarray(np.bincount(pairs[0]) >= common)[same.reshape(-1)]
