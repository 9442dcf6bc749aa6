"""Conversations -> packed sequences, in an order that (seed, round) decides.

Several conversations share a sequence, each with positions that restart at 0, from which the model
keeps attention within a conversation; for a model that does not (`packing_check`) each conversation
is a sequence of its own. Sequences end where the last conversation ends: there is no padding.
Nothing is dropped silently: conversations that are too long are cut at their end and counted.

Which conversations share a sequence follows from their lengths alone. Tokens are taken from the
shard when a sequence is asked for, so that memory holds those of one step.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import overload

import numpy as np

from data_contracts.dataset.forms.lines import bad_records
from silo_agent.training.ranks.left_out import LeftOut
from silo_agent.training.ranks.packed_sequence import Origin, PackedSequence, Shown
from silo_agent.training.ranks.token_shard import (
    APART,
    CONTINUES,
    SPELLS,
    Places,
    TokenShard,
)
from silo_agent.training.results import PackingCounts

OPEN_SEQUENCES = 8
"""First-fit looks into this many unfinished sequences before it closes the oldest."""

LOOKED_UP = 4096
"""Lengths that are looked up at a time."""


@dataclass(frozen=True)
class PackingRule:
    """How long sequences may be, in tokens, and whether conversations may share one.

    `context`: a conversation may not be longer than that, which is what the model was made for.
    `shown` as the model's family has it.
    """

    length: int
    together: bool = True
    context: int | None = None
    shown: Shown | None = None

    @property
    def room(self) -> int:
        """How long a conversation may be."""
        return min(self.length, self.context or self.length)


class PackedSequences(Sequence[PackedSequence]):
    """Sequences that are made of a shard whenever they are asked for.

    `chosen` gives, for each, the places of its conversations in the shard, of which the first
    `room` tokens are taken. What the model is `shown` of them is drawn by `seed` and round.
    """

    def __init__(
        self,
        shard: TokenShard,
        rule: PackingRule,
        chosen: Iterable[Sequence[int]],
        seed: tuple[int, int],
    ) -> None:
        self._shard, self._rule, self._seed = shard, rule, seed
        self._places, self._ends = array("q"), array("q", [0])
        for places in chosen:
            self._places.extend(places)
            self._ends.append(len(self._places))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> PackedSequence: ...

    @overload
    def __getitem__(self, index: slice) -> list[PackedSequence]: ...

    def __getitem__(self, index: int | slice) -> PackedSequence | list[PackedSequence]:
        if isinstance(index, slice):
            return [self._made(place) for place in range(*index.indices(len(self)))]
        return self._made(range(len(self))[index])

    @property
    def records(self) -> list[int]:
        """Of all conversations in their order, which record of the file each is of."""
        places = np.frombuffer(self._places, np.int64) if self._places else np.empty(0, np.int64)
        found: list[int] = self._shard.records_of(places).tolist()
        return found

    def first_places(self, count: int) -> Places:
        """Places in the shard of the conversations of the first `count` sequences, each once."""
        return np.unique(np.array(self._places[: self._ends[min(count, len(self))]], np.int64))

    def _made(self, index: int) -> PackedSequence:
        sequence, rule = PackedSequence(), self._rule
        places = tuple(self._places[self._ends[index] : self._ends[index + 1]])
        for place in places:
            sequence.append(*self._shard.cut(place, rule.room))
        if rule.shown is None:
            return sequence
        in_file = tuple(self._shard.in_file(place) for place in places)
        return rule.shown(sequence, Origin(self._shard.records, in_file, (*self._seed, index)))


def pack_training(
    shard: TokenShard, rule: PackingRule, *, count: int, seed: int, round_number: int
) -> tuple[PackedSequences, PackingCounts]:
    """Exactly `count` sequences; wraps around when data runs out.

    The order is a permutation drawn from (seed, round, pass), the same on every rank.
    """
    packer = _Packer(shard, rule)
    chosen = islice(packer.sequences((seed, round_number), wrap=True), count)
    return PackedSequences(shard, rule, chosen, (seed, round_number)), packer.counts()


def pack_heldout(shard: TokenShard, rule: PackingRule, *, limit: int, seed: int) -> PackedSequences:
    """The records of at most `limit` packed sequences, the same in every round, each once.

    Where conversations may not share a sequence these are the same records, in the same order.
    """
    packer = _Packer(shard, replace(rule, together=True))
    chosen: Iterable[list[int]] = islice(packer.sequences((seed, 0), wrap=False), limit)
    if not rule.together:
        chosen = ([place] for places in chosen for place in places)
    return PackedSequences(shard, rule, chosen, (seed, 0))


def count_all(shard: TokenShard, rule: PackingRule) -> PackingCounts:
    """What of a shard can be trained on, each conversation once; raises as packing does where
    nothing can."""
    packer = _Packer(shard, rule)
    for _ in packer.sequences((0, 0), wrap=False):
        pass
    return packer.counts()


class _Packer:
    """First-fit packing with a few open sequences, counting what did not fit."""

    def __init__(self, shard: TokenShard, rule: PackingRule) -> None:
        self._shard, self._rule = shard, rule
        self._used = self._truncated = self._skipped = self._spelling = self._passes = 0
        self._apart = self._continued = 0
        self._left_out = LeftOut()

    def counts(self) -> PackingCounts:
        """What happened so far."""
        return PackingCounts(
            conversations=self._used,
            truncated=self._truncated,
            skipped=self._skipped,
            passes=self._passes,
            spell_controls=self._spelling,
            **self._left_out.counts,
            apart=self._apart,
            continued=self._continued,
            together=self._rule.together,
        )

    def sequences(self, seed: tuple[int, int], *, wrap: bool) -> Iterator[list[int]]:
        """The conversations of each sequence, by their places in the shard."""
        open_ones: list[_Open] = []
        for place, size in self._of_records(seed, wrap=wrap):
            sequence = next((one for one in open_ones if one.room >= size), None)
            if sequence is None:
                if len(open_ones) == OPEN_SEQUENCES:
                    yield open_ones.pop(0).places
                sequence = _Open(self._rule.length)
                open_ones.append(sequence)
            sequence.places.append(place)
            sequence.room -= size
            if not self._rule.together:
                yield open_ones.pop().places
        yield from (one.places for one in open_ones)

    def _of_records(self, seed: tuple[int, int], *, wrap: bool) -> Iterator[tuple[int, int]]:
        """Place and size of every conversation that is used, in their order."""
        while self._passes == 0 or wrap:
            used_before = self._used
            order = np.random.Generator(np.random.PCG64([*_words(*seed), self._passes]))
            self._passes += 1
            permutation = order.permutation(len(self._shard))
            for start in range(0, len(permutation), LOOKED_UP):
                yield from self._fitting(permutation[start : start + LOOKED_UP])
            if self._used == used_before:
                raise bad_records(self._shard.records.name, self._nothing())

    def _nothing(self) -> str:
        """Why no conversation is used."""
        too_long = (
            f"only prompts that fill all {self._rule.room} tokens of the plan's sequences "
            "or the model's context"
        )
        found = self._left_out.in_words(len(self._shard))
        if self._left_out.total < len(self._shard):
            found.append(too_long)
        return "; besides, ".join(found)

    def _fitting(self, places: Places) -> Iterator[tuple[int, int]]:
        fit = self._shard.fit(places, self._rule.room)
        columns = (places, fit.sizes, fit.is_usable, fit.is_cut, fit.flags)
        for place, size, is_usable, is_cut, flags in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            if not is_usable:
                self._skipped += 1
                self._left_out.add(size, flags)
                continue
            self._used += 1
            self._truncated += is_cut
            self._spelling += flags & SPELLS != 0
            self._apart += flags & APART != 0
            self._continued += flags & CONTINUES != 0
            yield place, size


@dataclass
class _Open:
    """A sequence that takes more conversations, as long as they fit into its `room`."""

    room: int
    places: list[int] = field(default_factory=list)


def _words(seed: int, round_number: int) -> tuple[int, int, int]:
    return seed & 0xFFFFFFFF, seed >> 32, round_number
