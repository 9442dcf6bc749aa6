"""Records -> conversations -> packed sequences, in an order that (seed, round) decides.

Several conversations share a sequence, each with positions that restart at 0, from which the model
keeps attention within a conversation; for a model that does not (`packing_check`) each conversation
is a sequence of its own. Sequences end where the last conversation ends: there is no padding.
Nothing is dropped silently: conversations that are too long are cut at their end and counted.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from data_contracts.errors import DataStewardError
from data_contracts.shown_text import is_blank
from silo_agent.training.job import PackingCounts
from silo_agent.training.ranks.conversation import IGNORED, Conversation, Conversations

OPEN_SEQUENCES = 8
"""First-fit looks into this many unfinished sequences before it closes the oldest."""


@dataclass(frozen=True)
class PackingRule:
    """How long sequences may be, in tokens, and whether conversations may share one."""

    length: int
    together: bool = True


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


class RecordFile:
    """Random access to a JSONL file by line, so that shuffling needs no copy of it in memory.

    Raises DataStewardError when the file has no records or a line is not a record; the message
    names the line and never its content.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: list[int] = []
        position = 0
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    self._offsets.append(position)
                position += len(line)
        if not self._offsets:
            raise _bad_records(path, "an empty file")

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, index: int) -> tuple[str, str]:
        """(prompt, answer) of the record with this index."""
        with self.path.open("rb") as file:
            file.seek(self._offsets[index])
            line = file.readline()
        try:
            record = json.loads(line)
            prompt, answer = record["prompt"], record["answer"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise _bad_records(self.path, f"something else in record {index + 1}") from None
        texts = (prompt, answer)
        if not all(isinstance(text, str) and not is_blank(text) for text in texts):
            raise _bad_records(self.path, f"an empty or non-text field in record {index + 1}")
        return prompt, answer


def pack_training(
    conversations: Conversations,
    path: Path,
    rule: PackingRule,
    *,
    count: int,
    seed: int,
    round_number: int,
) -> tuple[list[PackedSequence], PackingCounts]:
    """Exactly `count` sequences; wraps around when data runs out.

    The order is a permutation drawn from (seed, round, pass), the same on every rank.
    """
    packer = _Packer(conversations, RecordFile(path), rule)
    packed: list[PackedSequence] = []
    for sequence in packer.sequences((seed, round_number), wrap=True):
        packed.append(sequence)
        if len(packed) == count:
            break
    return packed, packer.counts()


def pack_heldout(
    conversations: Conversations, path: Path, rule: PackingRule, *, limit: int, seed: int
) -> list[PackedSequence]:
    """The records of at most `limit` packed sequences, the same in every round, each once.

    Where conversations may not share a sequence these are the same records, in the same order.
    """
    packer = _Packer(conversations, RecordFile(path), PackingRule(rule.length))
    packed: list[PackedSequence] = []
    for sequence in packer.sequences((seed, 0), wrap=False):
        packed.append(sequence)
        if len(packed) == limit:
            break
    return packed if rule.together else [one for sequence in packed for one in sequence.apart()]


def answer_tokens(sequences: Sequence[PackedSequence]) -> int:
    """Tokens that carry loss over all `sequences`."""
    return sum(sequence.answer_tokens for sequence in sequences)


class _Packer:
    """First-fit packing with a few open sequences, counting what did not fit."""

    def __init__(
        self, conversations: Conversations, records: RecordFile, rule: PackingRule
    ) -> None:
        self._conversations, self._records, self._rule = conversations, records, rule
        self._used = self._truncated = self._skipped = self._spelling = self._passes = 0

    def counts(self) -> PackingCounts:
        """What happened so far."""
        return PackingCounts(
            conversations=self._used,
            truncated=self._truncated,
            skipped=self._skipped,
            passes=self._passes,
            spell_controls=self._spelling,
            together=self._rule.together,
        )

    def sequences(self, seed: tuple[int, int], *, wrap: bool) -> Iterator[PackedSequence]:
        room, open_ones = self._rule.length, list[PackedSequence]()
        for conversation in self._of_records(seed, wrap=wrap):
            size = len(conversation.labels)
            fitting = (s for s in open_ones if len(s.labels) + size <= room)
            sequence = next(fitting, None)
            if sequence is None:
                if len(open_ones) == OPEN_SEQUENCES:
                    yield open_ones.pop(0)
                sequence = PackedSequence()
                open_ones.append(sequence)
            sequence.append(conversation.token_ids, conversation.labels)
            if not self._rule.together:
                yield open_ones.pop()
        yield from open_ones

    def _of_records(self, seed: tuple[int, int], *, wrap: bool) -> Iterator[Conversation]:
        while self._passes == 0 or wrap:
            used_before = self._used
            order = np.random.Generator(np.random.PCG64([*_words(*seed), self._passes]))
            self._passes += 1
            for index in order.permutation(len(self._records)):
                conversation = self._fitted(*self._records.read(int(index)))
                if conversation is not None:
                    yield conversation
            if self._used == used_before:
                raise _bad_records(
                    self._records.path,
                    f"only prompts that fill all {self._rule.length} tokens of the plan's "
                    "sequences",
                )

    def _fitted(self, prompt: str, answer: str) -> Conversation | None:
        whole, room = self._conversations.of(prompt, answer), self._rule.length
        if whole is None or whole.labels[:room][-1] == IGNORED:
            self._skipped += 1
            return None
        self._used += 1
        self._truncated += len(whole.labels) > room
        self._spelling += whole.spells_controls
        return Conversation(whole.token_ids[:room], whole.labels[:room], whole.spells_controls)


def _words(seed: int, round_number: int) -> tuple[int, int, int]:
    return seed & 0xFFFFFFFF, seed >> 32, round_number


def _bad_records(path: Path, found: str) -> DataStewardError:
    return DataStewardError(
        f"training records {path.name}",
        expected="one JSON object per line with the non-empty texts `prompt` and `answer`",
        found=found,
        action="correct the data set or the fields that the data contract names for them",
    )
