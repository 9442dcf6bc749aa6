"""Records -> chat template -> tokens -> packed sequences, in an order that (seed, round) decides.

Several conversations share a sequence, each with positions that restart at 0, from which the model
keeps attention within a conversation. Labels are -100 on the prompt, so that only the answer and
its end-of-turn tokens count. Sequences end where the last conversation ends: there is no padding.
Nothing is dropped silently: conversations that are too long are cut at their end and counted.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_contracts.errors import DataStewardError, SiloOperatorError
from silo_agent.training.job import PackingCounts

IGNORED = -100
"""The label that cross entropy skips (PyTorch's `ignore_index`)."""

OPEN_SEQUENCES = 8
"""First-fit looks into this many unfinished sequences before it closes the oldest."""


class ChatTokenizer(Protocol):
    """What packing needs of a tokenizer; Hugging Face tokenizers satisfy it."""

    chat_template: Any

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any: ...


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
        if not (isinstance(prompt, str) and isinstance(answer, str) and prompt and answer):
            raise _bad_records(self.path, f"an empty or non-text field in record {index + 1}")
        return prompt, answer


def tokenize_conversation(
    tokenizer: ChatTokenizer, prompt: str, answer: str
) -> tuple[list[int], list[int]]:
    """(token ids, labels) of one turn; the prompt is tokenized alone, as it is in generation.

    Raises DataStewardError when the template renders the prompt differently once the answer is
    known, because then no border between prompt and answer exists.
    """
    asked = [{"role": "user", "content": prompt}]
    answered = [*asked, {"role": "assistant", "content": answer}]
    before = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(answered, tokenize=False)
    rest = whole.removeprefix(before)
    if len(rest) == len(whole) or not rest:
        raise DataStewardError(
            "chat template of the base model",
            expected="one whose prompt part stays the same when the answer follows",
            found="a prompt part that changes with the answer, so no border can be found",
            action="ask the federation operator for a base model whose chat template is a prefix "
            "template, or leave this run",
        )
    prompt_ids = list(tokenizer(before, add_special_tokens=False)["input_ids"])
    answer_ids = list(tokenizer(rest, add_special_tokens=False)["input_ids"])
    return prompt_ids + answer_ids, [IGNORED] * len(prompt_ids) + answer_ids


def pack_training(
    tokenizer: ChatTokenizer, path: Path, *, length: int, count: int, seed: int, round_number: int
) -> tuple[list[PackedSequence], PackingCounts]:
    """Exactly `count` sequences of at most `length` tokens; wraps around when data runs out.

    The order is a permutation drawn from (seed, round, pass), the same on every rank.
    """
    packer = _Packer(tokenizer, RecordFile(path), length)
    packed: list[PackedSequence] = []
    for sequence in packer.sequences((seed, round_number), wrap=True):
        packed.append(sequence)
        if len(packed) == count:
            break
    return packed, packer.counts()


def pack_heldout(
    tokenizer: ChatTokenizer, path: Path, *, length: int, limit: int, seed: int
) -> list[PackedSequence]:
    """At most `limit` sequences, the same in every round, each record used at most once."""
    packer = _Packer(tokenizer, RecordFile(path), length)
    packed: list[PackedSequence] = []
    for sequence in packer.sequences((seed, 0), wrap=False):
        packed.append(sequence)
        if len(packed) == limit:
            break
    return packed


def answer_tokens(sequences: Sequence[PackedSequence]) -> int:
    """Tokens that carry loss over all `sequences`."""
    return sum(sequence.answer_tokens for sequence in sequences)


class _Packer:
    """First-fit packing with a few open sequences, counting what did not fit."""

    def __init__(self, tokenizer: ChatTokenizer, records: RecordFile, length: int) -> None:
        if not tokenizer.chat_template:
            raise SiloOperatorError(
                "tokenizer of the base model",
                expected="a chat template",
                found="none",
                action="use an instruction-tuned base model, with its chat_template.jinja",
            )
        self._tokenizer, self._records, self._length = tokenizer, records, length
        self._conversations = self._truncated = self._skipped = self._passes = 0

    def counts(self) -> PackingCounts:
        """What happened so far."""
        return PackingCounts(
            conversations=self._conversations,
            truncated=self._truncated,
            skipped=self._skipped,
            passes=self._passes,
        )

    def sequences(self, seed: tuple[int, int], *, wrap: bool) -> Iterator[PackedSequence]:
        open_ones: list[PackedSequence] = []
        for token_ids, labels in self._conversations_of(seed, wrap=wrap):
            fitting = (s for s in open_ones if len(s.labels) + len(labels) <= self._length)
            sequence = next(fitting, None)
            if sequence is None:
                if len(open_ones) == OPEN_SEQUENCES:
                    yield open_ones.pop(0)
                sequence = PackedSequence()
                open_ones.append(sequence)
            sequence.append(token_ids, labels)
        yield from open_ones

    def _conversations_of(
        self, seed: tuple[int, int], *, wrap: bool
    ) -> Iterator[tuple[list[int], list[int]]]:
        while self._passes == 0 or wrap:
            used_before = self._conversations
            order = np.random.Generator(np.random.PCG64([*_words(*seed), self._passes]))
            self._passes += 1
            for index in order.permutation(len(self._records)):
                conversation = self._fitted(*self._records.read(int(index)))
                if conversation is not None:
                    yield conversation
            if self._conversations == used_before:
                raise _bad_records(
                    self._records.path,
                    f"only prompts that fill all {self._length} tokens of the plan's sequences",
                )

    def _fitted(self, prompt: str, answer: str) -> tuple[list[int], list[int]] | None:
        token_ids, labels = tokenize_conversation(self._tokenizer, prompt, answer)
        if labels[: self._length][-1] == IGNORED:
            self._skipped += 1
            return None
        self._conversations += 1
        self._truncated += len(labels) > self._length
        return token_ids[: self._length], labels[: self._length]


def _words(seed: int, round_number: int) -> tuple[int, int, int]:
    return seed & 0xFFFFFFFF, seed >> 32, round_number


def _bad_records(path: Path, found: str) -> DataStewardError:
    return DataStewardError(
        f"training records {path.name}",
        expected="one JSON object per line with the non-empty texts `prompt` and `answer`",
        found=found,
        action="correct the data set or the fields that the data contract names for them",
    )
