"""A defence chooses weights on products, and the merge with them is exact."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.defence import Defended, defended, delta_kernel
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.weighted_sum import Float64Array
from data_contracts.adapters.adapter_format import (
    AdapterFile,
    lora_a_name,
    lora_b_name,
    open_adapter,
)
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.merge_spec import MergeRule, RobustSpec
from tests.aggregator.adapter_samples import (
    TARGETS,
    dense,
    inputs_of,
    layout_with,
    random_tensors,
    write_adapter,
    write_tensors,
)

LAYOUT = layout_with(rank=3, alpha=3)
WIDE = layout_with(rank=40, alpha=40)


def cohort(
    directory: Path, honest: int, attackers: int, *, frozen: AdapterSource | None = None
) -> list[tuple[AdapterFile, int]]:
    """Honest silos near one adapter; attackers send it twenty times as large with a turned sign."""
    common = random_tensors(LAYOUT, seed=100)
    adapters = []
    for number in range(honest + attackers):
        noise = random_tensors(LAYOUT, seed=number)
        tensors = {n: common[n] + np.float32(0.1) * noise[n] for n in common}
        for target in TARGETS:
            if number >= honest:
                tensors[lora_b_name(target.module)] *= -20
            if frozen is not None:
                tensors[lora_a_name(target.module)] = frozen.module(target)[0]
        path = directory / f"silo-{number}.safetensors"
        adapters.append((write_tensors(path, LAYOUT, tensors), 10))
    return adapters


def flat(source: AdapterSource) -> Float64Array:
    return np.concatenate([dense(source, target).ravel() for target in TARGETS])


def merge(directory: Path, inputs: MergeInputs) -> tuple[Defended, Float64Array]:
    defence = defended(inputs)
    merge_adapters(defence.inputs, directory / "merged.safetensors")
    return defence, flat(open_adapter(directory / "merged.safetensors", inputs.layout))


def test_the_kernel_is_that_of_dense_deltas_and_of_the_carried_centre(tmp_path: Path) -> None:
    start = write_adapter(tmp_path / "start.safetensors", LAYOUT, seed=50)
    earlier = write_adapter(tmp_path / "earlier.safetensors", LAYOUT, seed=51)
    inputs = inputs_of(cohort(tmp_path, 4, 1), LAYOUT, start)
    inputs = MergeInputs(**{**vars(inputs), "earlier": earlier})
    kernel, centre = delta_kernel(inputs)
    deltas = np.stack([flat(a.source) - flat(start) for a in inputs.locals])
    carried = flat(start) - flat(earlier)
    np.testing.assert_allclose(kernel, deltas @ deltas.T, rtol=1e-9)
    assert centre is not None
    np.testing.assert_allclose(centre.products, deltas @ carried, rtol=1e-9)
    assert centre.squared_norm == pytest.approx(carried @ carried)


def test_the_default_defence_stays_near_the_honest_mean_where_the_mean_does_not(
    tmp_path: Path,
) -> None:
    adapters = cohort(tmp_path, honest=8, attackers=2)
    honest = np.mean([flat(adapter) for adapter, _ in adapters[:8]], axis=0)
    _, plain = merge(tmp_path, inputs_of(adapters, WIDE, InitialAdapter(LAYOUT)))
    robust = RobustSpec(tolerated_silos=2)
    defence, found = merge(
        tmp_path, inputs_of(adapters, WIDE, InitialAdapter(LAYOUT), robust=robust)
    )
    size = float(np.linalg.norm(honest))
    assert np.linalg.norm(plain - honest) > 3 * size
    assert np.linalg.norm(found - honest) < 0.2 * size
    clipped = sorted(part.kept for part in defence.parts.values())
    assert clipped[1] < 0.1 < 0.5 < clipped[2]
    assert sum(part.influence for part in defence.parts.values()) == pytest.approx(1)
    assert sum(part.alarm for part in defence.parts.values()) == 2
    assert not defence.needs_person


def test_a_carried_centre_enters_the_merge_with_its_share(tmp_path: Path) -> None:
    start = write_adapter(tmp_path / "start.safetensors", LAYOUT, seed=50)
    earlier = write_adapter(tmp_path / "earlier.safetensors", LAYOUT, seed=51)
    robust = RobustSpec(tolerated_silos=1, rule="centred_clipping", mixing="none", clip="none")
    inputs = inputs_of(cohort(tmp_path, 5, 1), WIDE, start, robust=robust)
    inputs = MergeInputs(**{**vars(inputs), "earlier": earlier})
    defence, found = merge(tmp_path, inputs)
    chosen = defence.inputs.defence
    assert chosen is not None
    assert chosen.centre > 0
    expected = flat(start) + chosen.centre * (flat(start) - flat(earlier))
    for weight, adapter in zip(chosen.silos, defence.inputs.locals, strict=True):
        expected = expected + weight * (flat(adapter.source) - flat(start))
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
def test_rules_by_coordinates_work_on_the_factor_that_is_trained(tmp_path: Path, rule: str) -> None:
    start = InitialAdapter(LAYOUT)
    adapters = cohort(tmp_path, honest=6, attackers=1, frozen=start)
    robust = {"rule": rule, "tolerated_silos": 1, "clip": "none", "mixing": "none"}
    inputs = inputs_of(adapters, LAYOUT, start, rule="frozen_a", robust=robust)
    defence, found = merge(tmp_path, inputs)
    honest = np.mean([flat(adapter) for adapter, _ in adapters[:6]], axis=0)
    assert np.linalg.norm(found - honest) < 0.3 * np.linalg.norm(honest)
    influences = [defence.parts[a.digest].influence for a in inputs.locals]
    assert sum(influences) == pytest.approx(1)
    bad = inputs.locals.index(max(inputs.locals, key=lambda a: np.linalg.norm(flat(a.source))))
    assert influences[bad] < 0.5 / 7


def test_three_silos_are_clipped_and_an_outlier_asks_for_a_person(tmp_path: Path) -> None:
    robust = RobustSpec(tolerated_silos=1, mixing="none", rule="mean")
    adapters = cohort(tmp_path, honest=2, attackers=1)
    defence, _ = merge(tmp_path, inputs_of(adapters, WIDE, InitialAdapter(LAYOUT), robust=robust))
    assert defence.needs_person
    calm, _ = merge(
        tmp_path, inputs_of(cohort(tmp_path, 3, 0), WIDE, InitialAdapter(LAYOUT), robust=robust)
    )
    assert not calm.needs_person


def test_too_few_admitted_silos_for_the_defence(tmp_path: Path) -> None:
    inputs = inputs_of(cohort(tmp_path, 4, 0), LAYOUT, robust=RobustSpec(tolerated_silos=1))
    with pytest.raises(FederationOperatorError, match="at least 5 admitted silos"):
        defended(inputs)


@pytest.mark.parametrize("rule", ["stack_truncate", "frozen_a", "fedsvd"])
@pytest.mark.parametrize("robust", ["multi_krum", "geometric_median", "centred_clipping", "mean"])
def test_every_defence_merges_what_its_weights_say(
    tmp_path: Path, rule: MergeRule, robust: Any
) -> None:
    """Multi-Krum gives some silos no weight at all."""
    start = InitialAdapter(LAYOUT)
    frozen = None if rule == "stack_truncate" else start
    defence_of = RobustSpec(tolerated_silos=2, rule=robust, mixing="none")
    layout = WIDE if rule == "stack_truncate" else LAYOUT
    adapters = cohort(tmp_path, honest=6, attackers=1, frozen=frozen)
    defence, found = merge(
        tmp_path, inputs_of(adapters, layout, start, rule=rule, robust=defence_of)
    )
    chosen = defence.inputs.defence
    assert chosen is not None
    if robust == "multi_krum":
        assert 0 in chosen.silos
    pairs = zip(chosen.silos, defence.inputs.locals, strict=True)
    expected = np.sum([weight * flat(a.source) for weight, a in pairs], axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(np.abs(expected).max()))


def test_weights_in_another_order_than_the_adapters_are_refused(tmp_path: Path) -> None:
    robust = RobustSpec(tolerated_silos=1)
    inputs = inputs_of(cohort(tmp_path, 5, 0), WIDE, InitialAdapter(LAYOUT), robust=robust)
    chosen = defended(inputs).inputs
    turned = replace(chosen, locals=chosen.locals[::-1])
    with pytest.raises(ValueError, match="in the order of their digests"):
        merge_adapters(turned, tmp_path / "merged")
