"""What a silo shows of its progress. Signed, for display only, expired by storage lifecycle."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from data_contracts.protocol.records.round_record import SiloRecord
from data_contracts.protocol.wire_types import Count, DecimalString, PositiveCount, ProgramVersion
from data_contracts.shown_text import size_text

Phase = Literal[
    "checking_data",
    "waiting_for_gpu",
    "loading_model",
    "training",
    "training_baseline",
    "training_personal",
    "evaluating",
    "releasing",
    "done",
    "stopped",
]


PHASE_WORDS: Mapping[str, str] = {"waiting_for_gpu": "waiting for its turn"}
"""Where a phase says less than it is: agents of a machine without GPUs take turns as well."""


class Status(SiloRecord):
    """`number` rises by one per status of the attempt; no decision ever rests on a status.

    `step` of `steps`: training steps, or losses that are measured; while data is checked, the
    records so far, of a number that is not known. 0 tokens per second is no measurement. `stopped`:
    the agent has ended before its part of the round was done. `memory_bytes` is the resident memory
    of the rank that holds most, `gpu_memory_bytes` the most that the first rank has had on its GPU;
    both leave the silo only where its policy says so, and are None where they were not measured.
    """

    kind: ClassVar[str] = "status"
    added_fields: ClassVar[tuple[str, ...]] = ("program", "memory_bytes", "gpu_memory_bytes")

    number: PositiveCount
    phase: Phase
    step: Count
    steps: Count
    tokens_per_second: DecimalString
    eta_seconds: Count
    program: ProgramVersion | None = None
    memory_bytes: Count | None = None
    gpu_memory_bytes: Count | None = None

    @property
    def progress(self) -> str:
        """Phase, progress, speed, time left and memory, with units; the unknown is left out."""
        parts = [PHASE_WORDS.get(self.phase, self.phase.replace("_", " "))]
        if self.steps:
            unit = "loss" if self.phase == "evaluating" else "step"
            parts.append(f"{unit} {self.step} of {self.steps}")
        elif self.step:
            parts.append(f"{self.step:,} records so far")
        if self.steps and self.tokens_per_second:
            parts.append(f"{self.tokens_per_second} tokens/s")
        if self.seconds_left is not None:
            parts.append(f"{self.seconds_left} s left")
        if self.memory:
            parts.append(f"memory {self.memory}")
        return ", ".join(parts)

    @property
    def seconds_left(self) -> int | None:
        """Of the phase; None where that is over or nobody has said it, as in private training."""
        return self.eta_seconds if self.step < self.steps and self.eta_seconds else None

    @property
    def memory(self) -> str:
        """What a rank holds, in words; empty where nobody has said it."""
        parts = [] if self.memory_bytes is None else [size_text(self.memory_bytes)]
        if self.gpu_memory_bytes is not None:
            parts.append(f"{size_text(self.gpu_memory_bytes)} on a GPU")
        return " and ".join(parts)
