"""What a family of models is to training: one module, from records to the loss.

A family says how records become token ids (`encoder`), what of a sequence the model is shown and
asked (`shown`), and the loss of that, summed over what is predicted: answer tokens, masked tokens,
records. Everything else, the engine, ZeRO, checkpoints, merge and evaluation, knows tensors and
sums and no families.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch

from data_contracts.dataset.examples import Message
from data_contracts.errors import DataStewardError
from data_contracts.protocol.records.model_family import FORMS_OF, FamilyTask, ModelFamily
from silo_agent.training.loss import HeldoutSums
from silo_agent.training.ranks import packing_check
from silo_agent.training.ranks.base_model import (
    load_base_model,
    load_tokenizer,
    recompute_activations,
    require_fitting,
)
from silo_agent.training.ranks.conversation import ChatTokenizer, Conversation
from silo_agent.training.ranks.families.encoder_rows import keeps_rows_apart
from silo_agent.training.ranks.packed_sequence import PackedSequence, Shown

Told = Sequence[Conversation | None]
"""The pieces of one record; None for one that cannot be told to the model."""

SummedLoss = Callable[[Sequence[PackedSequence]], torch.Tensor]
"""The summed loss of some sequences of a step, to be differentiated: a scalar."""


@dataclass(frozen=True)
class Scores:
    """Of each record (records,), float64: the summed loss, and how much of what is asked the first
    guess has right, where the family counts that."""

    losses: torch.Tensor
    right: torch.Tensor | None = None

    def sums(self, counts: Sequence[int]) -> HeldoutSums:
        """With how much each record is asked."""
        conversations = tuple(zip(self.losses.tolist(), counts, strict=True))
        right = None if self.right is None else self.right.sum().item()
        return HeldoutSums(conversations, right)


@dataclass(frozen=True)
class Telling:
    """What decides how records become tokens: the model's folder with its tokenizer, the day of a
    chat template that writes one, and the room of a sequence in tokens."""

    model_dir: Path
    day: str
    room: int


class FamilyEncoder:
    """Satisfies `data_contracts.dataset.forms.form.Encoder`; what a family does not override it is
    not trained on, and says so."""

    family: ClassVar[ModelFamily]

    def exchanges(self, records: Sequence[tuple[str, str]]) -> list[Told]:
        """(question, answer), or (text, class)."""
        self._refuse("prompts with answers", len(records))

    def conversations(self, records: Sequence[Sequence[Message]]) -> list[Told]:
        """Messages of several turns."""
        self._refuse("conversations", len(records))

    def documents(self, records: Sequence[str]) -> list[Told]:
        """Plain text."""
        self._refuse("plain text", len(records))

    def captions(self, records: Sequence[str]) -> list[Told]:
        """What is said of pictures, one piece each."""
        self._refuse("captions of pictures", len(records))

    def _refuse(self, found: str, records: int) -> NoReturn:
        raise DataStewardError(
            f"training records of the family {self.family}",
            expected=f"records of the form {' or '.join(FORMS_OF[self.family])}",
            found=f"{found}, {records} of them or more",
            action="correct the contract's form of records, or take part in a run of a family that "
            "is trained on them",
        )


class Family(ABC):
    """One family, with what a plan says of it; `packs`: its models can take sequences that records
    share."""

    name: ClassVar[ModelFamily]
    packs: ClassVar[bool] = True

    def __init__(self, task: FamilyTask) -> None:
        self.task = task

    @abstractmethod
    def encoder(self, tokenizer: ChatTokenizer, telling: Telling) -> FamilyEncoder:
        """From records to token ids."""

    def shown(self, tokenizer: Callable[[], ChatTokenizer], model_dir: Path) -> Shown | None:
        """How a sequence of the shard becomes what the model is shown, and asked; None: as it is.

        The draw in it may depend on nothing but the numbers that it is given.
        """
        return None

    def load_beside(self, model_dir: Path, device: torch.device) -> None:
        """Load what the model cannot do without and nobody trains; nothing for most families.

        It is frozen, whole on every rank and no part of the engine, so it is loaded before the
        model, while nothing tells transformers to partition what it loads.
        """
        return

    def load_base(self, model_dir: Path, whole: Collection[str], **options: Any) -> Any:
        """The model that adapters sit on, as `load_base_model` has it."""
        base = load_base_model(model_dir, self.task, whole, **options)
        require_fitting(base, load_tokenizer(model_dir))
        return base

    def recompute(self, model: Any, *, partitioned: bool) -> None:
        """Let a model keep little for the backward pass, and compute the rest again."""
        recompute_activations(model, partitioned=partitioned)

    def step_loss(
        self, model: Any, own: Sequence[PackedSequence], size: int, device: torch.device
    ) -> SummedLoss:
        """The summed loss of this rank's sequences of one step, for `size` of them at a time as
        `micro_batches` gives them; collective, once for a step."""
        return lambda sequences: self.batch_loss(model, sequences, device)

    @abstractmethod
    def batch_loss(
        self, model: Any, sequences: Sequence[PackedSequence], device: torch.device
    ) -> torch.Tensor:
        """Summed loss of what the sequences ask, which go through the model side by side."""

    @abstractmethod
    def measured(self, model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
        """What the scores of a sequence's records follow from, in the order of the records: float64
        (records x numbers), as many numbers for every record."""

    def scores(self, measured: torch.Tensor) -> Scores:
        """Of all held-out records together; unless a family says otherwise their numbers are the
        loss and, where it counts that, how much is right."""
        return Scores(measured[:, 0], measured[:, 1] if measured.shape[1] > 1 else None)

    def may_pack(self, model: Any, device: torch.device) -> bool:
        """Whether records may share a sequence, asked of the model; collective at ZeRO-3."""
        return self.packs and packing_check.may_pack(model, device)

    def may_batch(self, model: Any, device: torch.device, *, together: bool) -> bool:
        """Whether sequences may go through the model side by side; collective at ZeRO-3."""
        if self.packs:
            return packing_check.may_batch(model, device, together=together)
        return keeps_rows_apart(model, device)


def loss_and_right(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Of a sequence that is one record, whose logits (asked x choices) have these labels: 1 x 2."""
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double()
    right = (logits.argmax(dim=-1) == labels).double()
    return torch.stack([losses.sum(), right.sum()])[None]
