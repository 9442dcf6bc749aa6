"""A local adapter against what its silo started from."""

from decimal import Decimal

import numpy as np
import pytest

from data_contracts.adapters.starting_adapter import (
    AdapterSource,
    Float32Array,
    InitialAdapter,
    NarrowedAdapter,
)
from data_contracts.adapters.submission_gate import check_submission
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.training_recipe import TrainedFactors, TrainingRecipe
from tests.tiny_model import tiny_adapter_layout

LAYOUT = tiny_adapter_layout()


class Moved(InitialAdapter):
    """The initial adapter with constants added to both factors of its last module."""

    def __init__(self, layout: AdapterLayout, a: float, b: float) -> None:
        super().__init__(layout)
        object.__setattr__(self, "moved", (np.float32(a), np.float32(b)))

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        a, b = super().module(target)
        if target != self.layout.targets[-1]:
            return a, b
        by_a, by_b = self.moved  # type: ignore[attr-defined]
        return a + by_a, b + by_b


def recipe(trained: TrainedFactors) -> TrainingRecipe:
    return TrainingRecipe(
        local_steps=1,
        sequences_per_step=1,
        sequence_length=16,
        learning_rate=Decimal("0.1"),
        warmup_steps=0,
        weight_decay=Decimal(0),
        max_gradient_norm=Decimal(1),
        seed=0,
        trained_factors=trained,
    )


def rule(source: AdapterSource, starting: AdapterSource, trained: TrainedFactors) -> str | None:
    try:
        check_submission(source, starting, recipe(trained))
    except UntrustedInputError as error:
        return error.rule
    return None


@pytest.mark.parametrize(
    ("a", "b", "trained", "expected"),
    [
        (0.1, 0.1, "both", None),
        (0.0, 0.1, "both", None),
        (0.0, 0.1, "b", None),
        (0.1, 0.1, "b", "adapter.frozen_factor"),
        (0.1, 0.1, "a", "adapter.frozen_factor"),
        (0.1, 0.0, "both", "adapter.zero_delta"),
        (0.0, 0.0, "both", "adapter.zero_delta"),
    ],
)
def test_what_moved_must_be_what_the_plan_trains(
    a: float, b: float, trained: TrainedFactors, expected: str | None
) -> None:
    assert rule(Moved(LAYOUT, a, b), InitialAdapter(LAYOUT), trained) == expected


def test_the_starting_adapter_itself_is_no_contribution() -> None:
    start = Moved(LAYOUT, 0.3, 0.3)
    assert rule(Moved(LAYOUT, 0.3, 0.3), start, "both") == "adapter.unchanged"
    assert rule(Moved(LAYOUT, 0.4, 0.3), start, "both") is None
    assert rule(Moved(LAYOUT, 0.4, 0.3), start, "a") is None


def test_a_narrow_silo_is_compared_with_its_part_of_the_start() -> None:
    start = Moved(LAYOUT, 0.3, 0.3)
    narrow = LAYOUT.model_copy(update={"rank": 2, "alpha": 2})
    assert rule(NarrowedAdapter(start, narrow), start, "both") == "adapter.unchanged"
