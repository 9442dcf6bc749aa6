"""Moments of a training, for whoever shows them."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from silo_agent.metrics.readings import NO_READINGS, Moment, Readings

READINGS = Readings(
    tokens_per_second=158.2,
    eta_seconds=86.0,
    loss=2.5,
    memory_bytes=1_900_000_000,
    gpu_memory_bytes=20_100_000_000,
)
MOMENT = Moment(
    at=datetime(2027, 1, 1, 12, tzinfo=UTC),
    run="run-1",
    round=3,
    attempt=2,
    phase="training",
    step=1,
    steps=4,
    readings=READINGS,
)
LOADING = replace(MOMENT, phase="loading_model", step=0, steps=0, readings=NO_READINGS)


def moment(step: int, loss: float, **changes: Any) -> Moment:
    """A step of local training, or of what the changes say."""
    readings = replace(READINGS, loss=loss)
    return replace(MOMENT, step=step, readings=readings, **changes)
