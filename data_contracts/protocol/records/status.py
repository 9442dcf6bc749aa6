"""What a silo shows of its progress. Signed, for display only, expired by storage lifecycle."""

from typing import ClassVar, Literal

from data_contracts.protocol.records.round_record import SiloRecord
from data_contracts.protocol.wire_types import Count, DecimalString, PositiveCount, ProgramVersion

Phase = Literal[
    "checking_data",
    "waiting_for_gpu",
    "loading_model",
    "training",
    "training_baseline",
    "evaluating",
    "releasing",
    "done",
    "stopped",
]


class Status(SiloRecord):
    """`number` rises by one per status of the attempt; no decision ever rests on a status.

    `step` of `steps`: training steps, or losses that are measured; while data is checked, the
    records so far, of a number that is not known. 0 tokens per second is no measurement. `stopped`:
    the agent has ended before its part of the round was done.
    """

    kind: ClassVar[str] = "status"
    added_fields: ClassVar[tuple[str, ...]] = ("program",)

    number: PositiveCount
    phase: Phase
    step: Count
    steps: Count
    tokens_per_second: DecimalString
    eta_seconds: Count
    program: ProgramVersion | None = None

    @property
    def progress(self) -> str:
        """Phase, progress, speed and time left with their units; the unknown is left out."""
        parts = [self.phase.replace("_", " ")]
        if self.steps:
            unit = "loss" if self.phase == "evaluating" else "step"
            parts.append(f"{unit} {self.step} of {self.steps}")
        elif self.step:
            parts.append(f"{self.step:,} records so far")
        if self.steps and self.tokens_per_second:
            parts.append(f"{self.tokens_per_second} tokens/s")
        if self.step < self.steps:
            parts.append(f"{self.eta_seconds} s left")
        return ", ".join(parts)
