"""`average` under a heavy ball: the product of the averages, carried on and cut to the rank."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from aggregator.merge.adapter_merge import merge_adapters
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.protocol.records.merge_spec import FedAvgM, HeavyBall, MergeSpec
from tests.aggregator.adapter_samples import TARGETS, dense, inputs_of, layout_with, write_adapter

LAYOUT = layout_with()
BALL = {"name": "heavy_ball", "learning_rate": "0.5", "momentum": "0.25"}


@pytest.mark.parametrize("silos", [3, 9], ids=["exact error", "estimated error"])
def test_what_it_gives_and_the_error_that_it_tells(tmp_path: Path, silos: int) -> None:
    adapters = [(write_adapter(tmp_path / f"{n}", LAYOUT, n), 100) for n in range(silos)]
    start, earlier = (write_adapter(tmp_path / f"{n}", LAYOUT, n) for n in (90, 91))
    inputs = inputs_of(adapters, LAYOUT, start, rule="average", optimizer=BALL)
    result = merge_adapters(replace(inputs, earlier=earlier), tmp_path / "merged")
    found = open_adapter(tmp_path / "merged", LAYOUT)
    for target, (_, told) in zip(TARGETS, result.modules, strict=True):
        factors = [a.module(target) for a, _ in adapters]
        mean_a, mean_b = (np.mean([f[i].astype(float) for f in factors], axis=0) for i in (0, 1))
        carried = 0.25 * (dense(start, target) - dense(earlier, target))
        moved = LAYOUT.scaling * mean_b @ mean_a - dense(start, target)
        wanted = dense(start, target) + 0.5 * moved + carried
        best = np.linalg.norm(np.linalg.svd(wanted)[1][LAYOUT.rank :])
        assert best < np.linalg.norm(dense(found, target) - wanted) < 1.01 * best + 1e-6
        products = np.mean([dense(a, target) for a, _ in adapters], axis=0)
        true_sum = dense(start, target) + 0.5 * (products - dense(start, target)) + carried
        error = np.linalg.norm(dense(found, target) - true_sum) / np.linalg.norm(true_sum)
        assert told.error == pytest.approx(error, rel=1e-3 if silos <= 8 else 0.5)


def test_no_optimizer_with_a_state_goes_with_it() -> None:
    spec = MergeSpec(rule="average", weight_cap_tokens=1, optimizer=HeavyBall())
    assert spec.is_rebasing
    assert spec.carries_change
    assert not MergeSpec(rule="average", weight_cap_tokens=1).is_rebasing
    for rule in ("average", "frozen_a", "zero_pad"):
        with pytest.raises(ValidationError, match="heavy_ball goes with average too"):
            MergeSpec(rule=rule, weight_cap_tokens=1, optimizer=FedAvgM())
