"""Masked language models: tokens that are hidden from the model, in nats for each of them.

Of the tokens of a text 15 % are asked: 80 % of these are hidden behind the mask token, 10 % are
another token of the vocabulary and 10 % stay (Devlin et al. 2019, section 3.1). Which ones is drawn
anew whenever a sequence is trained on, from the numbers of the plan alone; of held-out records
always the same, so that losses of all rounds compare.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_contracts.errors import FederationOperatorError
from silo_agent.training.ranks.conversation import IGNORED, ChatTokenizer, Conversation
from silo_agent.training.ranks.families.encoder_rows import row_logits
from silo_agent.training.ranks.families.family import (
    Family,
    FamilyEncoder,
    Telling,
    Told,
    loss_and_right,
)
from silo_agent.training.ranks.packed_sequence import Origin, PackedSequence, Shown
from silo_agent.training.ranks.plain_text import PlainIds, around
from silo_agent.training.ranks.record_text import RecordText

ASKED, HIDDEN, REPLACED = 0.15, 0.8, 0.1
"""The share of tokens that are asked, and of these how many are hidden and replaced."""


class MaskedLm(Family):
    """Plain text, in pieces that begin and end as the tokenizer begins and ends a text."""

    name = "masked-lm"
    packs = False

    def encoder(self, tokenizer: ChatTokenizer, telling: Telling) -> FamilyEncoder:
        """Without a template."""
        return _Pieces(tokenizer, telling.room)

    def shown(self, tokenizer: Callable[[], ChatTokenizer], model_dir: Path) -> Shown | None:
        """With some of its tokens hidden; raises FederationOperatorError without a mask token."""
        found: Any = tokenizer()
        if found.mask_token_id is None:
            raise FederationOperatorError(
                "base model of the plan",
                expected="a tokenizer with a mask token, for the family masked-lm",
                found="none",
                action="begin a run with a masked language model, or of the family causal-lm",
            )
        return partial(hidden, mask=found.mask_token_id, vocabulary=len(found))

    def batch_loss(
        self, model: Any, sequences: Sequence[PackedSequence], device: torch.device
    ) -> torch.Tensor:
        """Nats of the tokens that are asked."""
        logits, labels = _asked(model, sequences, device)
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

    def measured(self, model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
        """Of the tokens that are asked of the one record."""
        return loss_and_right(*_asked(model, [sequence], device))


def hidden(
    sequence: PackedSequence, origin: Origin, *, mask: int, vocabulary: int
) -> PackedSequence:
    """`sequence` with some tokens hidden, at least one, and labels on those alone."""
    seed, round_number, index = origin.draw
    words = [seed & 0xFFFFFFFF, seed >> 32, round_number, index]
    rng = np.random.Generator(np.random.PCG64(words))
    places = [place for place, label in enumerate(sequence.labels) if label != IGNORED]
    count = max(1, round(len(places) * ASKED))
    chosen = rng.choice(places, size=count, replace=False).tolist()
    fates, others = rng.random(count).tolist(), rng.integers(vocabulary, size=count).tolist()
    ids, labels = list(sequence.token_ids), [IGNORED] * len(sequence.labels)
    for place, fate, other in zip(chosen, fates, others, strict=True):
        labels[place] = ids[place]
        if fate < HIDDEN:
            ids[place] = mask
        elif fate < HIDDEN + REPLACED:
            ids[place] = other
    return PackedSequence(ids, labels, list(sequence.positions))


class _Pieces(FamilyEncoder):
    """A text that is too long is cut into pieces one after the other, each enclosed."""

    family = "masked-lm"

    def __init__(self, tokenizer: ChatTokenizer, room: int) -> None:
        self._ids = PlainIds(RecordText(tokenizer))
        self._begin, self._end = around(tokenizer)
        self._room = max(1, room - len(self._begin) - len(self._end))

    def documents(self, records: Sequence[str]) -> list[Told]:
        """The pieces of each."""
        return [self._pieces(*found) for found in self._ids.of_many(records)]

    def _pieces(self, ids: list[int] | None, spells: bool) -> Told:
        if not ids:
            return (None,)
        starts = range(0, len(ids), self._room)
        return [
            self._piece(ids[start : start + self._room], spells, continues=start > 0)
            for start in starts
        ]

    def _piece(self, ids: list[int], spells: bool, *, continues: bool) -> Conversation:
        before, behind = ([IGNORED] * len(part) for part in (self._begin, self._end))
        return Conversation(
            [*self._begin, *ids, *self._end], [*before, *ids, *behind], spells, continues=continues
        )


def _asked(
    model: Any, sequences: Sequence[PackedSequence], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (asked tokens x vocabulary, float32), and labels."""
    logits = row_logits(model, sequences, device)
    labels = torch.full(logits.shape[:2], IGNORED)
    for row, sequence in enumerate(sequences):
        labels[row, : len(sequence.labels)] = torch.tensor(sequence.labels)
    rows, places = (labels != IGNORED).nonzero(as_tuple=True)
    chosen = logits[rows.to(device), places.to(device)].float()
    return chosen, labels[rows, places].to(device)
