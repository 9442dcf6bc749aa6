"""A silo's local adapter, by digest, with what the aggregator needs to weigh it."""

from typing import ClassVar, Literal

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.leak_statement import LeakStatement
from data_contracts.protocol.records.round_record import SiloRecord
from data_contracts.protocol.wire_types import (
    Count,
    DecimalString,
    Digest,
    PositiveCount,
    SealedText,
)

QuantisedWeights = Literal["8-bit", "4-bit"]


class Submission(SiloRecord):
    """Refers to the verdict that allowed the training and to the blob in the silo's inbox.

    `steps` and `tokens` are what was done: all of the plan's `local_steps`, or where the plan says
    so, from its `least_steps` on. Nobody but the silo can tell whether it did them.
    `base_weights` says that the silo held the frozen base model quantised while it trained; None:
    in full. The adapter is of the same form either way. `book_digest`: in confidential mode
    `adapter` is a masked file, under pads between the silos of this share book. `sealed_key` is
    what opens the blob where the plan asks for encryption; see `sealed_key.SealedKey`. `leaks`:
    what the silo has measured of the adapter before it left, where its contract lets that out.
    Under a plan with privacy training losses and `leaks` stay in (None), `tokens` are as many as
    the plan has, and `training_seconds` are 0: what was drawn is nobody's business.
    """

    kind: ClassVar[str] = "submission"
    added_fields: ClassVar[tuple[str, ...]] = ("base_weights", "book_digest", "sealed_key", "leaks")

    verdict_digest: Digest
    adapter: ArtifactRef
    tokens: PositiveCount
    steps: PositiveCount
    first_step_loss: DecimalString | None
    last_step_loss: DecimalString | None
    training_seconds: Count
    base_weights: QuantisedWeights | None = None
    book_digest: Digest | None = None
    sealed_key: SealedText | None = None
    leaks: LeakStatement | None = None
