"""How much of a text comes from one single record: what is left of a copy when words are changed.

A copy of which every eighth word is another one has no run of 13 words in common with its source,
and half of its runs of three. Such runs are common in a language, so what counts is how many come
from the same record: a text that was written anew has a few from each of many. What is much for a
data set, its own held-out records say, which share wording with others by their kind alone.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_contracts.dataset.novelty.shared_runs import uncommon
from data_contracts.dataset.word_hashes import WordHashes, mixed, text_of

RUN_WORDS = 3
_CHUNK_TEXTS = 512
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def share_from_one(
    texts: WordHashes, own: WordHashes, units: Sequence[int], common: int
) -> NDArray[np.float64]:
    """Of each text the largest share of its runs of three words that one text of `own` has (0 to
    1).

    Runs that `common` units or more have are nobody's, and not counted on either side. Text i of
    `own` is of unit `units[i]`.
    """
    own_runs, own_text = _runs(own)
    of_unit = np.asarray(units, dtype=np.int64)[own_text]
    rare = uncommon(own_runs, of_unit, common)
    is_common = ~np.isin(own_runs, rare)
    nobodys = np.unique(own_runs[is_common])
    pairs = np.unique(
        np.stack([own_runs[~is_common], own_text[~is_common].astype(np.uint64)]), axis=1
    )
    runs, text = _runs(texts)
    counted = ~np.isin(runs, nobodys)
    runs, text = runs[counted], text[counted]
    count = len(texts.counts)
    found = np.zeros(count, dtype=np.float64)
    for begin in range(0, count, _CHUNK_TEXTS):
        part = slice(*np.searchsorted(text, [begin, begin + _CHUNK_TEXTS]))
        found[begin : begin + _CHUNK_TEXTS] = _largest(
            runs[part], text[part] - begin, pairs, min(_CHUNK_TEXTS, count - begin)
        )
    return found


def _largest(
    runs: NDArray[np.uint64],
    text: NDArray[np.int64],
    pairs: NDArray[np.uint64],
    count: int,
) -> NDArray[np.float64]:
    """For `count` texts; `pairs` are (run, own text), ascending by runs."""
    begins = np.searchsorted(pairs[0], runs, side="left")
    sizes = np.searchsorted(pairs[0], runs, side="right") - begins
    within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    own = pairs[1][np.repeat(begins, sizes) + within].astype(np.int64)
    both, shared = np.unique(np.stack([np.repeat(text, sizes), own]), axis=1, return_counts=True)
    most = np.zeros(count, dtype=np.int64)
    np.maximum.at(most, both[0], shared)
    return np.asarray(most / np.maximum(np.bincount(text, minlength=count), 1), dtype=np.float64)


def _runs(words: WordHashes) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash and text of every run of three words, texts one after the other."""
    starts = words.windows(RUN_WORDS)
    total = np.zeros(len(starts), dtype=np.uint64)
    for place in range(RUN_WORDS):
        total = mixed(total * _MULTIPLIER + words.values[starts + place])
    return total, text_of(starts, words.offsets)
