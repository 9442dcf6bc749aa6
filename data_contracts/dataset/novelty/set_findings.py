"""Figures of a synthetic set beside a silo's records, and which rules they break.

Every record is one text, all that a model is shown of it. Rules about single texts compare with
training and held-out records alike, since both are the silo's; those about the whole set ask
whether training records are nearer than held-out ones, which only a set that remembers can tell.

Records of one kind are alike by their kind: codes of one table, notes of one form. How much, the
silo's held-out records say, which nobody copied from its training records. So two limits are at
least what 99 of 100 of them keep, and a tenth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_contracts.dataset.copyright.overlap import find_overlap
from data_contracts.dataset.copyright.registry import Registry
from data_contracts.dataset.novelty.near_copies import highest_similarity
from data_contracts.dataset.novelty.neighbours import Neighbours, find_neighbours
from data_contracts.dataset.novelty.one_source import share_from_one
from data_contracts.dataset.novelty.shared_runs import find_shared_runs
from data_contracts.dataset.small_cells import SMALL_CELL
from data_contracts.dataset.word_hashes import WordHashes, hash_words

NoveltyRule = Literal[
    "synthetic.too_few",
    "synthetic.span",
    "synthetic.containment",
    "synthetic.one_source",
    "synthetic.near_copy",
    "synthetic.nearer_to_train",
    "synthetic.neighbour_ratio",
    "synthetic.copyright",
]

COMMON = SMALL_CELL
"""Wording that records of so many subjects have is that of a form, and nobody's."""
USUAL, MARGIN = 0.99, 0.1


@dataclass(frozen=True)
class NoveltyLimits:
    """From where on a rule is broken. `span_words`: a word is a token or more, and 1.3 in English,
    so 38 words are some 50 tokens. `containment` and `one_source`: or what held-out records have,
    if that is more. `least_records`: on either side, for the rules about the set."""

    span_words: int = 38
    containment: float = 0.2
    one_source: float = 0.35
    similarity: float = 0.8
    chance: float = 0.01
    ratio_share: float = 0.5
    least_records: int = 100


@dataclass(frozen=True)
class OwnRecords:
    """A silo's texts. `train_units`: of which subject each training text is; a held-out text is
    taken for one of a subject of its own."""

    train: Sequence[str]
    train_units: Sequence[int]
    heldout: Sequence[str]


@dataclass(frozen=True)
class SetFindings:
    """What was found of `records` texts of a set: the row (from 1) of each that breaks a rule about
    single texts, and the figures of the whole. `neighbours`: None where there are too few."""

    records: int
    spans: tuple[int, ...]
    longest_span: int
    contained: tuple[int, ...]
    of_one_source: tuple[int, ...]
    near_copies: tuple[int, ...]
    copyrighted: tuple[int, ...]
    neighbours: Neighbours | None

    def caught(self) -> frozenset[int]:
        """Rows that break any rule about single texts."""
        return frozenset(
            row
            for rows in (
                self.spans,
                self.contained,
                self.of_one_source,
                self.near_copies,
                self.copyrighted,
            )
            for row in rows
        )

    def broken(self, limits: NoveltyLimits) -> tuple[NoveltyRule, ...]:
        """The rules that do not hold, in their order."""
        near = self.neighbours
        found: dict[NoveltyRule, bool] = {
            "synthetic.too_few": near is None,
            "synthetic.span": bool(self.spans),
            "synthetic.containment": bool(self.contained),
            "synthetic.one_source": bool(self.of_one_source),
            "synthetic.near_copy": bool(self.near_copies),
            "synthetic.nearer_to_train": near is not None and near.chance < limits.chance,
            "synthetic.neighbour_ratio": near is not None
            and near.ratio < limits.ratio_share * near.heldout_ratio,
            "synthetic.copyright": bool(self.copyrighted),
        }
        return tuple(rule for rule, is_broken in found.items() if is_broken)


def find_in_set(
    texts: Sequence[str],
    own: OwnRecords,
    limits: NoveltyLimits,
    registries: Sequence[Registry] = (),
) -> SetFindings:
    """Hold `texts` against a silo's records and the registries of its contract."""
    words, train, heldout = (hash_words(some) for some in (texts, own.train, own.heldout))
    both, units = _together(train, heldout), _units(own)
    usual = find_shared_runs(heldout, train, own.train_units, COMMON).containment
    usual_of_one = share_from_one(heldout, train, own.train_units, COMMON)
    shared = find_shared_runs(words, both, units, COMMON)
    alike = highest_similarity(words, both, units, COMMON)
    overlap = find_overlap(words, registries)
    enough = min(len(texts), len(own.train), len(own.heldout)) >= limits.least_records
    return SetFindings(
        records=len(texts),
        spans=_rows(shared.spans >= limits.span_words),
        longest_span=int(shared.spans.max(initial=0)),
        contained=_rows(shared.containment > _at_least(limits.containment, usual)),
        of_one_source=_rows(
            share_from_one(words, both, units, COMMON) > _at_least(limits.one_source, usual_of_one)
        ),
        near_copies=_rows(alike >= limits.similarity),
        copyrighted=_rows(overlap.hits),
        neighbours=find_neighbours(words, train, heldout) if enough else None,
    )


def _at_least(limit: float, usual: NDArray[np.float64]) -> float:
    """`limit`, or more where the silo's own records are more alike than that."""
    if not len(usual):
        return limit
    return max(limit, float(np.quantile(usual, USUAL)) + MARGIN)


def _together(one: WordHashes, other: WordHashes) -> WordHashes:
    offsets = np.concatenate([one.offsets, other.offsets[1:] + one.offsets[-1]])
    return WordHashes(np.concatenate([one.values, other.values]), offsets)


def _units(own: OwnRecords) -> list[int]:
    first = max(own.train_units, default=-1) + 1
    return [*own.train_units, *range(first, first + len(own.heldout))]


def _rows(breaks: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(place) + 1 for place in np.flatnonzero(breaks))
