"""A silo's losses on its own held-out data."""

from typing import Annotated, ClassVar

from pydantic import Field

from data_contracts.protocol.records.round_record import SiloRecord
from data_contracts.protocol.wire_types import Count, DecimalString, Digest, Part, PositiveCount

MAX_LOSS = 10**6
"""Nats per token; what a silo says of a loss that is not finite."""

Loss = Annotated[DecimalString, Field(ge=0, le=MAX_LOSS)]
StandardError = Annotated[DecimalString, Field(ge=0, le=MAX_LOSS)]


Share = Annotated[DecimalString, Field(ge=0, le=1)]


class RightShares(Part):
    """Which share of what is asked the first guess has right, such as the classes of texts."""

    base: Share
    starting: Share
    candidate: Share


class Evaluation(SiloRecord):
    """Mean negative log-likelihood in nats per answer token on the silo's held-out split.

    Under a plan with a task of another family it is that family's loss (`LOSS_WORDS`), `tokens` are
    what is asked, and `right` is there where the family counts that.

    `starting_loss` is that of the adapter the round started from (the last published one, or the
    base model in the first round); `silo_only_loss` that of an adapter trained by this silo for as
    many local steps and never merged, where the silo keeps one; `personal_loss` that of the
    adapter that it has made for itself beside the federation's, as it is used there, and which
    never leaves it; None where it makes none, or keeps the loss in.

    `records` are the held-out records that were measured; None where they are a small cell or the
    contract lets no counts out. `change_error` is the standard error of `candidate_loss -
    starting_loss` and `base_change_error` that of `candidate_loss - base_loss`, in nats per token,
    from the differences of single records; None where they are a small cell.
    """

    kind: ClassVar[str] = "evaluation"
    added_fields: ClassVar[tuple[str, ...]] = ("personal_loss", "right")

    candidate_digest: Digest
    tokens: PositiveCount
    base_loss: Loss
    starting_loss: Loss
    candidate_loss: Loss
    silo_only_loss: Loss | None
    records: Count | None = None
    change_error: StandardError | None = None
    base_change_error: StandardError | None = None
    personal_loss: Loss | None = None
    right: RightShares | None = None
