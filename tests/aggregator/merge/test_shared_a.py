"""Factors A without their B, merged under optimizers and defences: the reference is float64."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.defence import defended
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.server_state import open_server_state
from aggregator.merge.step_size import stepped
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from tests.aggregator.adapter_samples import inputs_of, layout_with, write_adapter
from tests.data_contracts.whole_samples import LAYOUT, moved, written

SHARED = LAYOUT.a_alone
WEIGHTS = (30, 5, 50, 40, 25)


def inputs(directory: Path, **merge: Any) -> MergeInputs:
    """Five silos from a start that is not the seed's, with what the round before started from."""
    directory.mkdir(exist_ok=True)

    def file(name: str, seed: int, scale: float) -> Any:
        path = written(directory / name, moved(seed, scale, SHARED))
        return open_adapter(path, SHARED)

    files = [(file(f"silo-{n}", n, 0.3), weight) for n, weight in enumerate(WEIGHTS)]
    found = inputs_of(files, SHARED, file("start", 91, 0.3), 2, rule="shared_a", **merge)
    return replace(found, earlier=file("earlier", 92, 0.2))


def tensor(source: Any, target: AdapterTarget) -> np.ndarray:
    return np.asarray(source.module(target)[1], dtype=np.float64)


def mean_change(found: MergeInputs, target: AdapterTarget) -> np.ndarray:
    total = sum(a.weight for a in found.locals)
    start = tensor(found.starting, target)
    changes = [a.weight / total * (tensor(a.source, target) - start) for a in found.locals]
    return np.asarray(sum(changes))


@pytest.mark.parametrize("optimizer", ["fedavg", "heavy_ball", "fedexp", "diloco"])
def test_optimizers_step_on_a_itself(tmp_path: Path, optimizer: str) -> None:
    found = stepped(inputs(tmp_path / "in", optimizer={"name": optimizer}))
    merge = merge_adapters(found, tmp_path / "merged", tmp_path / "state")
    merged = open_adapter(tmp_path / "merged", SHARED)
    for target in SHARED.targets:
        start, change = tensor(found.starting, target), mean_change(found, target)
        expected = {
            "fedavg": start + change,
            "heavy_ball": start + change + 0.3 * (start - tensor(found.earlier, target)),
            "fedexp": start + (found.step or 0) * change,
            "diloco": start + 0.7 * 1.9 * change,
        }[optimizer]
        np.testing.assert_allclose(tensor(merged, target), expected, rtol=1e-5, atol=1e-6)
    assert merge.exactness.error == merge.exactness.discarded_energy == 0
    if optimizer == "diloco":
        open_server_state(tmp_path / "state", SHARED, found.merge.optimizer)


def test_defences_choose_among_factors_a(tmp_path: Path) -> None:
    """A silo that shouts has no more say than its share, and the median is taken by entries."""
    robust = {"tolerated_silos": 1, "rule": "median", "clip": "none", "mixing": "none"}
    median = inputs(tmp_path / "median", robust=robust)
    merge_adapters(defended(median).inputs, tmp_path / "by-entries")
    merged = open_adapter(tmp_path / "by-entries", SHARED)
    for target in SHARED.targets:
        stacked = [tensor(a.source, target) for a in median.locals]
        np.testing.assert_allclose(tensor(merged, target), np.median(stacked, axis=0), rtol=1e-6)
    plain = inputs(tmp_path / "plain", robust={"tolerated_silos": 1})
    loud = written(tmp_path / "loud", moved(4, 300, SHARED))
    shouting = replace(plain.locals[0], source=open_adapter(loud, SHARED))
    chosen = defended(replace(plain, locals=(shouting, *plain.locals[1:])))
    assert chosen.parts[shouting.digest].kept < 0.01
    assert chosen.parts[shouting.digest].alarm


def test_a_pair_is_no_part_of_it(tmp_path: Path) -> None:
    layout = layout_with()
    files = [(write_adapter(tmp_path / str(seed), layout, seed), 1) for seed in (1, 2)]
    with pytest.raises(ValueError, match="expected factors A alone under shared_a, found a pair"):
        merge_adapters(inputs_of(files, layout, rule="shared_a"), tmp_path / "merged")
    one = written(tmp_path / "shared", moved(1, layout=SHARED))
    mixed = [*files, (open_adapter(one, SHARED), 1)]
    with pytest.raises(FederationOperatorError, match="modules and shapes of the plan"):
        merge_adapters(inputs_of(mixed, layout, rule="shared_a"), tmp_path / "merged")
