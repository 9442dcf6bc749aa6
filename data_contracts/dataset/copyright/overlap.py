"""How much of each text is in a registry, from look-ups alone.

A registry stores every 13th run of 13 words of its texts, and a text is looked up at every word. So
what was copied shows as a chain: hits at words p, p + 13, p + 26 ... of one text. In a verbatim
span of 13 c + 12 words c whole tiles lie however the span is aligned, so a chain of c is certain; a
text is a hit from `MIN_CHAIN` = 2 tiles on, which is certain from 38 words on and possible from 26.
One hit may be chance or a common phrase, and counts for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from data_contracts.dataset.copyright.registry import Registry
from data_contracts.dataset.copyright.tiles import REGISTRY_STRIDE, WORDS_PER_TILE, probe_tiles
from data_contracts.dataset.word_hashes import WordHashes, text_of

MIN_CHAIN = 2
NO_REGISTRY = -1


@dataclass(frozen=True)
class Overlap:
    """Findings of all texts, one entry of each array (int64) per text.

    `chains` is the longest chain of the text, in tiles, over all registries, and `registry` the
    index of the registry that has it: the first one on a tie, NO_REGISTRY without any hit.
    `coverage_per_mille` is the share of the text's words that lie in hits of chains of MIN_CHAIN
    and more, of any registry, rounded up.
    """

    chains: NDArray[np.int64]
    registry: NDArray[np.int64]
    coverage_per_mille: NDArray[np.int64]

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Which texts hold a chain that is no coincidence."""
        return self.chains >= MIN_CHAIN


def find_overlap(words: WordHashes, registries: Sequence[Registry]) -> Overlap:
    """Look every run of 13 words of every text up in every registry."""
    texts = len(words.offsets) - 1
    longest = np.zeros(texts, dtype=np.int64)
    found_in = np.full(texts, NO_REGISTRY, dtype=np.int64)
    chained = [np.empty(0, dtype=np.int64)]
    for index, hits in enumerate(_hits(words, registries)):
        lengths = chain_lengths(hits, words.offsets)
        longest_here = np.zeros(texts, dtype=np.int64)
        np.maximum.at(longest_here, text_of(hits, words.offsets), lengths)
        found_in[longest_here > longest] = index
        longest = np.maximum(longest, longest_here)
        chained.append(hits[lengths >= MIN_CHAIN])
    return Overlap(longest, found_in, _coverage(np.unique(np.concatenate(chained)), words))


def chain_lengths(hits: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of tiles of the chain that each hit belongs to.

    `hits` are ascending first words of hits, `offsets` those of WordHashes; a chain stays in one
    text.
    """
    order = np.argsort(hits % REGISTRY_STRIDE, kind="stable")
    position, text = hits[order], text_of(hits[order], offsets)
    is_first = np.ones(len(hits), dtype=np.bool_)
    is_first[1:] = (np.diff(position) != REGISTRY_STRIDE) | (np.diff(text) != 0)
    chain = np.cumsum(is_first) - 1
    lengths = np.empty(len(hits), dtype=np.int64)
    lengths[order] = np.bincount(chain)[chain]
    return lengths


def _hits(words: WordHashes, registries: Sequence[Registry]) -> list[NDArray[np.int64]]:
    """First words of the runs that each registry has, in its order; one hashing per key."""
    hits = [np.empty(0, dtype=np.int64)] * len(registries)
    ordered = sorted(enumerate(registries), key=lambda item: item[1].key.id)
    for _, group in groupby(ordered, key=lambda item: item[1].key.id):
        of_key = list(group)
        starts, hashes = probe_tiles(words, of_key[0][1].key)
        for index, registry in of_key:
            hits[index] = starts[registry.bloom.contains(hashes)]
    return hits


def _coverage(hits: NDArray[np.int64], words: WordHashes) -> NDArray[np.int64]:
    """Words under the hits, each counted once, per mille of the text's words."""
    text = text_of(hits, words.offsets)
    covered = np.full(len(hits), WORDS_PER_TILE, dtype=np.int64)
    next_in_text = text[1:] == text[:-1]
    covered[:-1][next_in_text] = np.minimum(np.diff(hits)[next_in_text], WORDS_PER_TILE)
    total = np.zeros(len(words.offsets) - 1, dtype=np.int64)
    np.add.at(total, text, covered)
    return -(-1000 * total // np.maximum(words.counts, 1))
