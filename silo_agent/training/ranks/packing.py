"""Conversations -> packed sequences, in an order that (seed, round) decides.

Several conversations share a sequence, each with positions that restart at 0, from which the model
keeps attention within a conversation; for a model that does not (`packing_check`) each conversation
is a sequence of its own. Sequences end where the last conversation ends: there is no padding.
Nothing is dropped silently: conversations that are too long are cut at their end and counted.

Which conversations share a sequence follows from their lengths alone. Tokens are taken from the
shard when a sequence is asked for, so that memory holds those of one step.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import overload

import numpy as np

from data_contracts.dataset.forms.lines import bad_records
from silo_agent.training.ranks.conversation import IGNORED
from silo_agent.training.ranks.left_out import LeftOut
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


Draw = tuple[int, int, int]
"""What may be drawn for a sequence follows from these alone: seed, round, its number."""

Shown = Callable[["PackedSequence", Draw], "PackedSequence"]
"""What a model is shown of a sequence, and asked, where that is not the sequence itself."""


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


@dataclass
class PackedSequence:
    """Conversations side by side: three lists of the same length, at most `sequence_length`."""

    token_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    def append(self, token_ids: list[int], labels: list[int]) -> None:
        """Add one conversation, with positions that restart at 0."""
        self.token_ids += token_ids
        self.labels += labels
        self.positions += range(len(token_ids))

    @property
    def answer_tokens(self) -> int:
        """How many tokens carry loss."""
        return sum(label != IGNORED for label in self.labels)

    @property
    def record_starts(self) -> list[int]:
        """Where each conversation begins; one conversation is one record, never in two pieces."""
        return [place for place, position in enumerate(self.positions) if position == 0]

    def padded(self, length: int, highest: int) -> "PackedSequence":
        """With tokens without loss at its end, up to `length` tokens.

        Their positions go on, so that they belong to the last conversation, which does not look at
        them; beyond the `highest` of the micro-batch, which may be all that the model has, each of
        them is one of its own.
        """
        missing, place = length - len(self.positions), self.positions[-1] + 1
        onward = range(place, place + missing)
        return PackedSequence(
            self.token_ids + self.token_ids[-1:] * missing,
            self.labels + [IGNORED] * missing,
            self.positions + [position if position <= highest else 0 for position in onward],
        )

    def apart(self) -> "list[PackedSequence]":
        """Its conversations, each as a sequence of its own."""
        borders = [*self.record_starts, len(self.positions)]
        return [
            PackedSequence(self.token_ids[a:b], self.labels[a:b], self.positions[a:b])
            for a, b in pairwise(borders)
        ]

    @property
    def record_answer_tokens(self) -> list[int]:
        """How many tokens carry loss, for each conversation."""
        ends = [*self.record_starts[1:], len(self.labels)]
        return [
            sum(label != IGNORED for label in self.labels[start:end])
            for start, end in zip(self.record_starts, ends, strict=True)
        ]


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

    def _made(self, index: int) -> PackedSequence:
        sequence = PackedSequence()
        for place in self._places[self._ends[index] : self._ends[index + 1]]:
            sequence.append(*self._shard.cut(place, self._rule.room))
        shown = self._rule.shown
        return sequence if shown is None else shown(sequence, (*self._seed, index))


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


def answer_tokens(sequences: Iterable[PackedSequence]) -> int:
    """Tokens that carry loss over all `sequences`."""
    return sum(sequence.answer_tokens for sequence in sequences)


def micro_batches(
    sequences: Sequence[PackedSequence], size: int
) -> Iterator[Sequence[PackedSequence]]:
    """The sequences of a step, of which only a sum is asked, `size` at a time: those of like
    lengths together, which need little padding."""
    if size > 1:
        sequences = sorted(sequences, key=lambda sequence: len(sequence.token_ids))
    for start in range(0, len(sequences), size):
        yield sequences[start : start + size]


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
                raise bad_records(self._shard.records, self._nothing())

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
