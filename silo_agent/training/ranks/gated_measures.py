"""Records measured with a personal adapter and without it, by training and by evaluation alike.

Without the personal adapter its B is zero, so what acts beside it is measured on the same model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch

from silo_agent.training.loss import HeldoutSums, RecordSums
from silo_agent.training.prompt_gate import Measured, PromptGate, likeness
from silo_agent.training.ranks.conversation import IGNORED
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.token_logits import prompt_states


class Measuring(Protocol):
    """A model, or an engine, as far as it measures."""

    def heldout(self, sequences: Sequence[PackedSequence]) -> HeldoutSums: ...

    def measured_model(self) -> tuple[Any, torch.device]: ...


@dataclass(frozen=True)
class Alone:
    """Records without the personal adapter: sums of their answers, last hidden states of their
    prompts (records x hidden)."""

    answers: RecordSums
    states: list[list[float]]


class BothWays:
    """Records with a personal adapter and without it; `put` puts it into the model (True), or what
    leaves the model as it is without it."""

    def __init__(self, model: Measuring, put: Callable[[bool], None]) -> None:
        self._model, self._put = model, put

    def of(self, sequences: Sequence[PackedSequence], centre: Sequence[float]) -> Measured:
        """Losses of answers both ways, and likenesses of prompts."""
        alone = self.alone(sequences)
        likenesses = [likeness(state, centre) for state in alone.states]
        return Measured(alone.answers, self.answers(sequences, with_it=True), likenesses)

    def mixed(
        self, sequences: Sequence[PackedSequence], alone: Alone, gate: PromptGate
    ) -> RecordSums:
        """Of each record the sums of the adapter that `gate` takes; `alone` is of `sequences`."""
        likenesses = [likeness(state, gate.centre) for state in alone.states]
        if not any(map(gate.takes, likenesses)):
            return alone.answers
        with_it = self.answers(sequences, with_it=True)
        return Measured(alone.answers, with_it, likenesses).mixed(gate)

    def alone(self, sequences: Sequence[PackedSequence]) -> Alone:
        """Without the personal adapter, which stays out of the model."""
        return Alone(self.answers(sequences, with_it=False), self.states(sequences))

    def answers(self, sequences: Sequence[PackedSequence], *, with_it: bool) -> RecordSums:
        """Sums of answers; the adapter stays in the model or out of it."""
        self._put(with_it)
        return self._model.heldout(sequences).conversations

    def states(self, sequences: Sequence[PackedSequence]) -> list[list[float]]:
        """Of the prompts of all records, without the adapter; each rank computes all of them."""
        self._put(False)
        model, device = self._model.measured_model()
        found: list[list[float]] = []
        for sequence in sequences:
            prompts = prompts_of(sequence)
            found += prompt_states(model, prompts, _ends_of(prompts), device).tolist()
        return found


def prompts_of(sequence: PackedSequence) -> PackedSequence:
    """Its records without their answers, of which nothing is asked: up to the token before the
    first answer token, or of an answer that begins at once that first token."""
    prompts = PackedSequence()
    for start, stop in pairwise([*sequence.record_starts, len(sequence.labels)]):
        told = (place for place in range(start, stop) if sequence.labels[place] != IGNORED)
        ids = sequence.token_ids[start : max(start + 1, next(told, stop))]
        prompts.append(ids, [IGNORED] * len(ids))
    return prompts


def _ends_of(prompts: PackedSequence) -> list[int]:
    """Place of the last token of each."""
    return [border - 1 for border in [*prompts.record_starts[1:], len(prompts.labels)]]
