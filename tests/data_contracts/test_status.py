"""A status is read by people: what it counts is named, and what it does not know is left out."""

from decimal import Decimal
from typing import Any

import pytest

from data_contracts.protocol.records import Status
from tests.aggregator.federation_samples import federation, minutes

PLACE: dict[str, Any] = {"silo": "bank-a", "number": 1}


@pytest.mark.parametrize(
    ("phase", "step", "steps", "speed", "left", "shown"),
    [
        ("training", 3, 6, "120.5", 30, "training, step 3 of 6, 120.5 tokens/s, 30 s left"),
        ("training", 6, 6, "120.5", 0, "training, step 6 of 6, 120.5 tokens/s"),
        ("training_baseline", 1, 6, "0", 9, "training baseline, step 1 of 6, 9 s left"),
        ("training", 1, 4, "0", 0, "training, step 1 of 4"),
        ("evaluating", 2, 4, "0", 5, "evaluating, loss 2 of 4, 5 s left"),
        ("checking_data", 1200, 0, "0", 0, "checking data, 1,200 records so far"),
        ("checking_data", 0, 0, "0", 0, "checking data"),
        ("waiting_for_gpu", 0, 0, "0", 0, "waiting for its turn"),
        ("done", 0, 0, "0", 0, "done"),
    ],
)
def test_progress_has_units(
    phase: str, step: int, steps: int, speed: str, left: int, shown: str
) -> None:
    counts = {"step": step, "steps": steps, "eta_seconds": left}
    status = Status.on(
        federation().plan,
        minutes(5),
        phase=phase,
        tokens_per_second=Decimal(speed),
        **counts,
        **PLACE,
    )
    assert status.progress == shown


@pytest.mark.parametrize(
    ("memory", "shown"),
    [
        ({"memory_bytes": 1_900_000_000}, "training, step 6 of 6, memory 1.9 GB"),
        (
            {"memory_bytes": 950_000_000, "gpu_memory_bytes": 20_100_000_000},
            "training, step 6 of 6, memory 950.0 MB and 20.1 GB on a GPU",
        ),
        ({"gpu_memory_bytes": 999}, "training, step 6 of 6, memory 999 B on a GPU"),
        ({}, "training, step 6 of 6"),
    ],
)
def test_memory_is_said_where_it_is_known(memory: dict[str, int], shown: str) -> None:
    status = Status.on(
        federation().plan,
        minutes(5),
        phase="training",
        step=6,
        steps=6,
        tokens_per_second=Decimal(0),
        eta_seconds=0,
        **memory,
        **PLACE,
    )
    assert status.progress == shown
