"""Sequence classification: the class of a text, by a head of the model, in nats for each text.

The head is no part of most base models; it is trained whole and federated beside the adapter. In a
file of tokens a record begins with the number of its class, the one token of it that counts, and
goes on with the text. A text that is too long loses its end, but for the token that closes it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data_contracts.errors import DataStewardError
from data_contracts.protocol.records.model_family import FamilyTask
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
from silo_agent.training.ranks.plain_text import PlainIds, around, closed
from silo_agent.training.ranks.record_text import RecordText


class SequenceClassification(Family):
    """A text and its class, one of those that the plan names."""

    name = "sequence-classification"
    packs = False

    def encoder(self, tokenizer: ChatTokenizer, telling: Telling) -> FamilyEncoder:
        """By the plan's classes."""
        return _Classified(tokenizer, self.task)

    def shown(self, tokenizer: Callable[[], ChatTokenizer], model_dir: Path) -> Shown | None:
        """The text, asked for its class."""
        _, end = around(tokenizer())
        return partial(asked_for_class, end=end)

    def batch_loss(
        self, model: Any, sequences: Sequence[PackedSequence], device: torch.device
    ) -> torch.Tensor:
        """Nats of the classes."""
        logits, labels = _asked(model, sequences, device)
        return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")

    def measured(self, model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
        """Of the class of the one text."""
        return loss_and_right(*_asked(model, [sequence], device))

    def may_batch(self, model: Any, device: torch.device, *, together: bool) -> bool:
        """A causal model that knows no padding takes one text at a time."""
        wrapped = getattr(model, "module", model)
        if wrapped.get_base_model().config.pad_token_id is None:
            return False
        return super().may_batch(model, device, together=together)


def _asked(
    model: Any, sequences: Sequence[PackedSequence], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (texts x classes, float32), and the numbers of the classes."""
    labels = torch.tensor([sequence.labels[0] for sequence in sequences], device=device)
    return row_logits(model, sequences, device).float(), labels


def asked_for_class(sequence: PackedSequence, origin: Origin, *, end: list[int]) -> PackedSequence:
    """The text of a sequence, whose class is the label of its first token; nothing is drawn."""
    number, *ids = sequence.token_ids
    ids = closed(ids, end)
    labels = [number, *[IGNORED] * (len(ids) - 1)]
    return PackedSequence(ids, labels, list(range(len(ids))))


class _Classified(FamilyEncoder):
    """The number of the class, and behind it the text as the tokenizer encloses it."""

    family = "sequence-classification"

    def __init__(self, tokenizer: ChatTokenizer, task: FamilyTask) -> None:
        self._ids = PlainIds(RecordText(tokenizer))
        self._begin, self._end = around(tokenizer)
        self._numbers = {word: number for number, word in enumerate(task.classes or ())}

    def exchanges(self, records: Sequence[tuple[str, str]]) -> list[Told]:
        """(text, class); raises DataStewardError for a class that the plan does not name."""
        found = self._ids.of_many([text for text, _ in records])
        return [
            (self._told(ids, spells, word),)
            for (ids, spells), (_, word) in zip(found, records, strict=True)
        ]

    def _told(self, ids: list[int] | None, spells: bool, word: str) -> Conversation | None:
        number = self._numbers.get(word)
        if number is None:
            raise DataStewardError(
                "training records",
                expected=f"one of the {len(self._numbers)} classes that the plan names",
                found="another class",
                action="correct fl.classes in the data contract, or ask the federation operator "
                "for a run with that class",
            )
        if not ids:
            return None
        whole = [number, *self._begin, *ids, *self._end]
        return Conversation(whole, [number, *[IGNORED] * (len(whole) - 1)], spells)
