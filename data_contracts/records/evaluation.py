"""A silo's losses on its own held-out data."""

from typing import ClassVar

from data_contracts.records.base import SiloRecord
from data_contracts.wire_types import DecimalString, Digest, PositiveCount


class Evaluation(SiloRecord):
    """Mean negative log-likelihood in nats per answer token on the silo's held-out split.

    `starting_loss` is that of the adapter the round started from (the last published one, or the
    base model in the first round); `silo_only_loss` that of an adapter trained by this silo for as
    many local steps and never merged, where the silo keeps one.
    """

    kind: ClassVar[str] = "evaluation"

    candidate_digest: Digest
    tokens: PositiveCount
    base_loss: DecimalString
    starting_loss: DecimalString
    candidate_loss: DecimalString
    silo_only_loss: DecimalString | None
