"""What an agent measures of its own work while it does it, as values."""

from dataclasses import dataclass
from datetime import datetime

from data_contracts.protocol.records.status import Phase

PARTS: dict[Phase, str] = {
    "training": "training",
    "training_baseline": "baseline",
    "training_personal": "personal",
    "evaluating": "heldout",
}
"""What a step is one of: local training, the silo-only baseline, the personal adapter, a held-out
loss."""


@dataclass(frozen=True)
class Readings:
    """What was measured at one moment; None is no measurement.

    `loss` is in nats per answer token. `memory_bytes` is the resident memory of the rank that holds
    most, `gpu_memory_bytes` the most that PyTorch has had allocated on the first rank's GPU.
    """

    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    loss: float | None = None
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None


NO_READINGS = Readings()


@dataclass(frozen=True)
class Moment:
    """What the agent does now, in which attempt of which round of which run."""

    at: datetime
    run: str
    round: int
    attempt: int
    phase: Phase
    step: int
    steps: int
    readings: Readings

    @property
    def part(self) -> str | None:
        """The part of a round that a finished step belongs to; None where no step was finished."""
        return PARTS.get(self.phase) if self.step and self.steps else None

    @property
    def measured(self) -> dict[str, float]:
        """Everything that a chart over steps can show, by its name; nothing where there is no step.

        What was not measured is left out, and so is how long the rest takes.
        """
        if self.part is None:
            return {}
        readings = self.readings
        values = {
            "loss": readings.loss,
            "tokens_per_second": readings.tokens_per_second,
            "memory_bytes": readings.memory_bytes,
            "gpu_memory_bytes": readings.gpu_memory_bytes,
        }
        return {f"{self.part}/{name}": float(v) for name, v in values.items() if v is not None}
