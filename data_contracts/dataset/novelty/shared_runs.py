"""What two sets of texts share word by word: runs of 13 words, and the spans that these make up.

A run is looked for exactly, by keyed 64-bit hashes of its words (`copyright.tiles`, with a key that
is drawn for each comparison and forgotten). Runs that records of `common` units or more have, such
as the wording of a form, are nobody's and count as shared by none. Texts of fewer than 13 words
have no runs; what is alike in them is for `near_copies` to say.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_contracts.dataset.copyright.tiles import WORDS_PER_TILE, derive_tile_key, probe_tiles
from data_contracts.dataset.word_hashes import WordHashes, text_of

KEY_BYTES = 32


@dataclass(frozen=True)
class SharedRuns:
    """Of each text that was looked up: `containment`, the share of its runs that are shared (0 to
    1; 0 where it has none), and `spans`, the words of its longest part of which every run is."""

    containment: NDArray[np.float64]
    spans: NDArray[np.int64]


def find_shared_runs(
    texts: WordHashes, own: WordHashes, units: Sequence[int], common: int
) -> SharedRuns:
    """Look every run of `texts` up among those of `own`, whose text i is of unit `units[i]`."""
    key = derive_tile_key(secrets.token_bytes(KEY_BYTES))
    starts, runs = probe_tiles(texts, key)
    own_starts, own_runs = probe_tiles(own, key)
    of_unit = np.asarray(units, dtype=np.int64)[text_of(own_starts, own.offsets)]
    is_shared = np.isin(runs, uncommon(own_runs, of_unit, common))
    count = len(texts.counts)
    text = text_of(starts, texts.offsets)
    shared = np.bincount(text[is_shared], minlength=count)
    containment = shared / np.maximum(np.bincount(text, minlength=count), 1)
    return SharedRuns(containment, _spans(starts[is_shared], text[is_shared], count))


def uncommon(runs: NDArray[np.uint64], units: NDArray[np.int64], common: int) -> NDArray[np.uint64]:
    """The runs that fewer than `common` units have, each once, ascending."""
    pairs = np.unique(np.stack([runs, units.astype(np.uint64)]), axis=1)
    values, counts = np.unique(pairs[0], return_counts=True)
    return np.asarray(values[counts < common], dtype=np.uint64)


def _spans(starts: NDArray[np.int64], text: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Words of the longest span of each of `count` texts, from the first words of shared runs."""
    longest = np.zeros(count, dtype=np.int64)
    if not len(starts):
        return longest
    is_first = np.ones(len(starts), dtype=np.bool_)
    is_first[1:] = (np.diff(starts) != 1) | (np.diff(text) != 0)
    firsts = np.flatnonzero(is_first)
    lengths = np.diff(np.append(firsts, len(starts))) + WORDS_PER_TILE - 1
    np.maximum.at(longest, text[firsts], lengths)
    return longest
