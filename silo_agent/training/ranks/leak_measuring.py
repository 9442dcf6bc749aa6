"""Sequences of both sides through a model as it is at the moment, as many as there is time for."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, Protocol

import torch
import torch.distributed as dist

from data_contracts.protocol.records.model_family import CAUSAL
from silo_agent.leaks.figures import CONTINUED_TOKENS
from silo_agent.training.job import TrainingJob
from silo_agent.training.loss import RecordSums
from silo_agent.training.ranks.families.family import Family
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.process_group import of_first_rank
from silo_agent.training.ranks.starting_tensors import NamedTensors
from silo_agent.training.ranks.token_logits import answer_guesses

FORWARD_SHARE = 0.5
"""A forward pass costs no more of a training step than this."""


class Trained(Protocol):
    """An engine as far as it is measured on."""

    @property
    def family(self) -> Family: ...

    def measured_model(self) -> tuple[Any, torch.device]: ...

    def put(self, tensors: NamedTensors, adapter: str = ...) -> None: ...


@dataclass(frozen=True)
class Budget:
    """So many `seconds`; `token_seconds`: what a token took in training."""

    seconds: float
    token_seconds: float

    def share(self, of_seconds: float) -> "Budget":
        """That part of the time."""
        return replace(self, seconds=self.seconds * of_seconds)

    def less(self, seconds: float) -> "Budget":
        """What is left after so many."""
        return replace(self, seconds=max(0.0, self.seconds - seconds))


@dataclass(frozen=True)
class Found:
    """Sequences with what was measured of their conversations: rows of the family's numbers, and
    of [tokens that were compared, of those the first guesses that are right]."""

    sequences: list[PackedSequence]
    measured: torch.Tensor
    guessed: torch.Tensor


class Measuring:
    """Sequences through the model as it is at the moment, shared out over the ranks."""

    def __init__(self, engine: Trained, job: TrainingJob) -> None:
        self._engine, self._family = engine, engine.family
        self._guesses = job.task.family == CAUSAL
        self._ranks, self._rank = dist.get_world_size(), dist.get_rank()

    def until(self, sides: Sequence[Sequence[PackedSequence]], budget: Budget) -> list[Found]:
        """As many sequences of each side in turn as there is time for."""
        ranks = self._ranks
        found: list[list[Found]] = [[] for _ in sides]
        began = time.monotonic()
        longest = max(len(side) for side in sides)
        tokens = sum(len(s.token_ids) for side in sides for s in side[:ranks])
        next_seconds = tokens * budget.token_seconds * FORWARD_SHARE
        for start in range(0, longest, ranks):
            turn = time.monotonic()
            if of_first_rank(partial(_is_over, turn - began + next_seconds, budget.seconds)):
                break
            for side, parts in zip(sides, found, strict=True):
                parts.append(self.of(side[start : start + ranks]))
            next_seconds = time.monotonic() - turn
        return [_joined(parts) for parts in found]

    def of(self, sequences: Sequence[PackedSequence]) -> Found:
        """At ZeRO-3 every forward pass is collective, so each rank does the same number."""
        model, device = self._engine.measured_model()
        places = list(accumulate((len(s.record_starts) for s in sequences), initial=0))
        both = torch.empty(0, 2)
        with torch.no_grad():
            for start in range(0, len(sequences), self._ranks):
                position = start + self._rank
                own = sequences[min(position, len(sequences) - 1)]
                rows = self._rows(model, own, device)
                if not start:
                    both = rows.new_zeros(places[-1], rows.shape[1])
                if position < len(sequences):
                    both[places[position] : places[position + 1]] = rows
        if sequences:
            dist.all_reduce(both)
        both = both.cpu()
        return Found(list(sequences), both[:, 2:], both[:, :2])

    def losses(self, found: Found) -> RecordSums:
        """Of each conversation: summed loss, and how much was asked."""
        if not found.sequences:
            return ()
        counts = [count for each in found.sequences for count in each.record_answer_tokens]
        return self._family.scores(found.measured).sums(counts).conversations

    def _rows(self, model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
        if not self._guesses:
            measured = self._family.measured(model, sequence, device)
            return torch.cat([measured.new_zeros(len(measured), 2), measured], dim=1)
        nats, right, places = answer_guesses(model, sequence, device)
        return record_guesses(sequence, nats, right, places)


def _is_over(then: float, end: float) -> bool:
    return then > end


def record_guesses(
    sequence: PackedSequence, nats: torch.Tensor, right: torch.Tensor, places: torch.Tensor
) -> torch.Tensor:
    """Of each record of a sequence: [answer tokens that are compared, of those that are right,
    nats], float64 (records x 3), from the answer tokens' values and places.

    Compared are the first CONTINUED_TOKENS; of a record that begins with its answer, as a document
    does, those behind as many, which are then the prompt.
    """
    borders = [*sequence.record_starts, len(sequence.labels)]
    cuts = torch.searchsorted(places, torch.tensor(borders)).tolist()
    rows = torch.zeros(len(borders) - 1, 3, dtype=torch.float64, device=nats.device)
    for record, (start, begin, end) in enumerate(zip(borders, cuts, cuts[1:], strict=False)):
        if begin == end:
            continue
        told = CONTINUED_TOKENS if int(places[begin]) - start <= 1 else 0
        compared = right[min(begin + told, end) : min(begin + told + CONTINUED_TOKENS, end)]
        rows[record, 0], rows[record, 1] = len(compared), compared.sum()
        rows[record, 2] = nats[begin:end].sum()
    return rows


def _joined(parts: Sequence[Found]) -> Found:
    whole = [part for part in parts if part.sequences]
    if not whole:
        return Found([], torch.empty(0, 1), torch.empty(0, 2))
    sequences = [sequence for part in whole for sequence in part.sequences]
    measured = torch.cat([part.measured for part in whole])
    return Found(sequences, measured, torch.cat([part.guessed for part in whole]))
