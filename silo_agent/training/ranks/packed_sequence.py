"""Conversations side by side as a model is given them, and what of a sequence it is shown."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from silo_agent.training.ranks.conversation import IGNORED


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


@dataclass(frozen=True)
class Origin:
    """Where a sequence comes from: the file of records, and the places in it of its conversations,
    counted from 0. What is drawn for it follows from `draw` alone: seed, round, its number."""

    records: Path
    places: tuple[int, ...]
    draw: tuple[int, int, int]


Shown = Callable[["PackedSequence", Origin], "PackedSequence"]
"""What a model is shown of a sequence, and asked, where that is not the sequence itself."""


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
