"""What a silo shows of its progress. Signed, for display only, expired by storage lifecycle."""

from typing import ClassVar, Literal

from data_contracts.records.base import SiloRecord
from data_contracts.wire_types import Count, DecimalString, PositiveCount

Phase = Literal[
    "checking_data",
    "waiting_for_gpu",
    "loading_model",
    "training",
    "training_baseline",
    "evaluating",
    "releasing",
    "done",
]


class Status(SiloRecord):
    """`number` rises by one per status of the attempt; no decision ever rests on a status."""

    kind: ClassVar[str] = "status"

    number: PositiveCount
    phase: Phase
    step: Count
    steps: Count
    tokens_per_second: DecimalString
    eta_seconds: Count
