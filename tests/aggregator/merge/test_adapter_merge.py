"""Merging files: order, weights, exactness, determinism, and PEFT's own combination as oracle."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import set_peft_model_state_dict
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_torch

from aggregator.merge.adapter_merge import merge_adapters
from data_contracts.adapters.adapter_format import AdapterFile, check_adapter, open_adapter
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from tests.aggregator.adapter_samples import (
    TARGETS,
    dense,
    inputs_of,
    layout_with,
    write_adapter,
)


def three_adapters(tmp_path: Path) -> list[tuple[AdapterFile, int]]:
    layouts = ((2, 5), (4, 16), (8, 3))
    return [
        (
            write_adapter(tmp_path / f"{i}.safetensors", layout_with(rank, alpha), seed=i),
            100 * (i + 1),
        )
        for i, (rank, alpha) in enumerate(layouts)
    ]


def test_mixed_ranks_and_alphas_equal_the_weighted_sum(tmp_path: Path) -> None:
    adapters, layout = three_adapters(tmp_path), layout_with(rank=14, alpha=7)
    merge_adapters(inputs_of(adapters, layout), tmp_path / "merged.safetensors")
    merged = open_adapter(tmp_path / "merged.safetensors", layout)
    for target in TARGETS:
        expected = sum(weight / 600 * dense(adapter, target) for adapter, weight in adapters)
        np.testing.assert_allclose(dense(merged, target), expected, atol=1e-5)


def test_every_order_gives_the_same_bytes(tmp_path: Path) -> None:
    adapters, layout = three_adapters(tmp_path), layout_with()
    results = {
        merge_adapters(inputs_of(order, layout), tmp_path / "merged.safetensors").adapter.digest
        for order in itertools.permutations(adapters)
    }
    assert len(results) == 1


def test_identical_adapters_merge_to_themselves(tmp_path: Path) -> None:
    layout = layout_with()
    one = write_adapter(tmp_path / "one.safetensors", layout, seed=4)
    two = write_adapter(tmp_path / "two.safetensors", layout, seed=4)
    merge_adapters(inputs_of([(one, 3), (two, 999)], layout), tmp_path / "merged.safetensors")
    merged = check_adapter(tmp_path / "merged.safetensors", layout)
    for target in TARGETS:
        np.testing.assert_allclose(dense(merged, target), dense(one, target), atol=1e-5)


def test_the_start_cancels_as_delta_arithmetic_says(tmp_path: Path) -> None:
    layout = layout_with(rank=6, alpha=6)
    start = write_adapter(tmp_path / "start.safetensors", layout, seed=50)
    locals_ = [
        (write_adapter(tmp_path / f"{i}.safetensors", layout, seed=i), 7 + i) for i in (1, 2)
    ]
    wide = layout_with(rank=12, alpha=12)
    merge_adapters(inputs_of(locals_, wide, start), tmp_path / "merged.safetensors")
    merged = open_adapter(tmp_path / "merged.safetensors", wide)
    total = sum(weight for _, weight in locals_)
    for target in TARGETS:
        base = dense(start, target)
        deltas = sum(w / total * (dense(adapter, target) - base) for adapter, w in locals_)
        np.testing.assert_allclose(dense(merged, target), base + deltas, atol=1e-5)


def test_reports_energy_per_module_and_overall(tmp_path: Path) -> None:
    adapters, layout = three_adapters(tmp_path), layout_with(rank=2, alpha=2)
    merge = merge_adapters(inputs_of(adapters, layout), tmp_path / "merged.safetensors")
    dropped = total = 0.0
    for target, (name, exactness) in zip(TARGETS, merge.modules, strict=True):
        full = sum(weight / 600 * dense(adapter, target) for adapter, weight in adapters)
        squares = np.linalg.svd(full, compute_uv=False) ** 2
        assert name == target.module
        assert exactness.discarded_energy == pytest.approx(squares[2:].sum() / squares.sum())
        dropped, total = dropped + squares[2:].sum(), total + squares.sum()
    assert merge.exactness.discarded_energy == pytest.approx(dropped / total)
    assert 0 < merge.exactness.discarded_energy < 1


def test_file_matches_its_reference_and_safetensors_reads_it(tmp_path: Path) -> None:
    layout, into = layout_with(), tmp_path / "new" / "merged.safetensors"
    steps: list[tuple[int, int]] = []
    merge = merge_adapters(
        inputs_of(three_adapters(tmp_path), layout),
        into,
        on_progress=lambda *done: steps.append(done),
    )
    assert artifact_of_file(into) == merge.adapter
    assert steps == [(1, 2), (2, 2)]
    assert [path.name for path in into.parent.glob("[!.]*")] == ["merged.safetensors"]
    ours = open_adapter(into, layout)
    theirs = load_file(into)
    for name in ours.offsets:
        assert theirs[name].dtype == np.float32
    a, _ = ours.module(TARGETS[0])
    np.testing.assert_array_equal(a, theirs[f"base_model.model.{TARGETS[0].module}.lora_A.weight"])


def test_a_failed_merge_leaves_no_file(tmp_path: Path) -> None:
    layout, into = layout_with(), tmp_path / "out" / "merged.safetensors"
    adapter = write_adapter(tmp_path / "a.safetensors", layout)
    raw = bytearray(adapter.path.read_bytes())
    raw[-4:] = np.float32(np.nan).tobytes()
    adapter.path.write_bytes(raw)
    with pytest.raises(Exception, match="finite"):
        merge_adapters(inputs_of([(adapter, 1)], layout), into)
    assert list(into.parent.glob("[!.]*")) == []


@pytest.mark.parametrize("weights", [[], [0, 5], [-1, 2]])
def test_impossible_weights_are_refused(tmp_path: Path, weights: list[int]) -> None:
    adapter = write_adapter(tmp_path / "a.safetensors", layout_with())
    pairs = [(adapter, weight) for weight in weights]
    with pytest.raises(FederationOperatorError, match="weight of at least 1 token"):
        merge_adapters(inputs_of(pairs, layout_with()), tmp_path / "merged.safetensors")


def test_another_layout_is_refused(tmp_path: Path) -> None:
    other = (AdapterTarget(module="model.other", in_features=12, out_features=10),)
    adapter = write_adapter(tmp_path / "a.safetensors", layout_with())
    stranger = write_adapter(tmp_path / "b.safetensors", layout_with(targets=other))
    with pytest.raises(FederationOperatorError, match="modules and shapes of the plan"):
        merge_adapters(inputs_of([(stranger, 1)], layout_with()), tmp_path / "m.safetensors")
    with pytest.raises(FederationOperatorError, match="modules and shapes of the plan"):
        merge_adapters(
            inputs_of([(adapter, 1)], layout_with(), stranger), tmp_path / "m.safetensors"
        )


class TwoLayers(torch.nn.Module):
    """Small enough to compare every product densely."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(12, 20, bias=False)
        self.down = torch.nn.Linear(20, 9, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.down(torch.relu(self.up(x)))
        return result


def test_equals_pefts_cat_combination(tmp_path: Path) -> None:
    targets = (
        AdapterTarget(module="up", in_features=12, out_features=20),
        AdapterTarget(module="down", in_features=20, out_features=9),
    )
    layouts, weights = {"s1": (2, 7), "s2": (4, 3), "s3": (8, 29)}, [300, 100, 600]
    model = get_peft_model(TwoLayers(), _config(2, 7), adapter_name="s1")
    adapters = []
    for name, (rank, alpha) in layouts.items():
        layout = layout_with(rank, alpha, targets)
        adapter = write_adapter(tmp_path / f"{name}.safetensors", layout, seed=rank)
        if name != "s1":
            model.add_adapter(name, _config(rank, alpha))
        set_peft_model_state_dict(model, load_torch(adapter.path), adapter_name=name)
        adapters.append(adapter)
    shares = [weight / 1000 for weight in weights]
    model.add_weighted_adapter(list(layouts), shares, "cat", combination_type="cat")
    layout = layout_with(14, 28, targets)
    pairs = list(zip(adapters, weights, strict=True))
    merge_adapters(inputs_of(pairs, layout), tmp_path / "merged.safetensors")
    merged = open_adapter(tmp_path / "merged.safetensors", layout)
    for target in targets:
        layer = model.base_model.model.get_submodule(target.module)
        oracle = layer.get_delta_weight("cat").detach().numpy()
        scale = max(1.0, float(np.abs(oracle).max()))
        np.testing.assert_allclose(dense(merged, target), oracle, atol=1e-5 * scale)


def _config(rank: int, alpha: int) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=["up", "down"], lora_dropout=0.0)
