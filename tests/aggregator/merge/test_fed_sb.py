"""The rule `fed_sb`: cores between the bases of one adapter, whose sum loses nothing."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.merge_inputs import LocalAdapter, MergeInputs
from aggregator.merge.step_size import stepped
from data_contracts.adapters.adapter_format import (
    adapter_bytes_limit,
    adapter_entries,
    open_adapter,
)
from data_contracts.adapters.core_bases import UnmovedCores, WithBases, bases_of
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, tensors_of
from data_contracts.adapters.tensor_layout import payload_bytes
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.merge_spec import (
    FedAvg,
    FedExP,
    HeavyBall,
    MergeSpec,
    ServerOptimizer,
)
from tests.aggregator.adapter_samples import (
    TARGETS,
    dense,
    layout_with,
    write_adapter,
    write_tensors,
)

LAYOUT = layout_with()
WEIGHTS = (100, 700)
SHARES = tuple(weight / sum(WEIGHTS) for weight in WEIGHTS)
EXACT = 3e-6


def sent(path: Path, start: AdapterSource, seed: int, size: float = 0.5) -> WithBases:
    """What a silo with random changes of all cores submitted, as the coordinator opens it."""
    rng = np.random.default_rng(seed)
    changes = tensors_of(UnmovedCores(start))
    for change in changes.values():
        change += size * rng.standard_normal(change.shape).astype(np.float32)
    return WithBases(start, write_tensors(path, start.layout.cores, changes))


def inputs_of(
    tmp_path: Path, start: AdapterSource, optimizer: ServerOptimizer, silos: int = 2
) -> MergeInputs:
    locals_ = tuple(
        LocalAdapter(sent(tmp_path / f"{n}.sent", start, n), f"{n}" * 64, WEIGHTS[n % 2])
        for n in range(silos)
    )
    merge = MergeSpec(rule="fed_sb", weight_cap_tokens=1000, optimizer=optimizer)
    return MergeInputs(LAYOUT, merge, 3, locals_, start)


def merged(
    tmp_path: Path, inputs: MergeInputs, name: str = "merged"
) -> tuple[AdapterSource, float]:
    result = merge_adapters(inputs, tmp_path / name)
    return open_adapter(tmp_path / name, LAYOUT), result.exactness.error


def core_of(adapter: WithBases, target: AdapterTarget) -> np.ndarray:
    return adapter.cores.module(target.core(LAYOUT.rank))[1].astype(np.float64)


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.linalg.norm(found - expected) <= EXACT * np.linalg.norm(expected)


@pytest.mark.parametrize("is_first", [True, False], ids=["seed", "adapter"])
def test_the_merge_is_the_product_of_the_mean_core(tmp_path: Path, is_first: bool) -> None:
    start = InitialAdapter(LAYOUT) if is_first else write_adapter(tmp_path / "start", LAYOUT, 9)
    inputs = inputs_of(tmp_path, start, FedAvg())
    found, error = merged(tmp_path, inputs)
    assert error < EXACT
    for target in TARGETS:
        bases = bases_of(start, target)
        sources = [local.source for local in inputs.locals]
        core = bases.core + sum(
            share * core_of(source, target)
            for share, source in zip(SHARES, sources, strict=True)
            if isinstance(source, WithBases)
        )
        b, a = bases.b.astype(np.float64), bases.a.astype(np.float64)
        assert_same(dense(found, target), LAYOUT.scaling * b @ core @ a)
        products = [dense(source, target) for source in sources]
        assert_same(dense(found, target), np.average(products, axis=0, weights=WEIGHTS))


def test_no_round_leaves_the_spaces_of_its_bases_and_none_loses_a_part(tmp_path: Path) -> None:
    """With a heavy ball too: what is carried on lies between the same bases."""
    start: AdapterSource = write_adapter(tmp_path / "start", LAYOUT, 9)
    earlier: AdapterSource = InitialAdapter(LAYOUT)
    first = start
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        inputs = replace(
            inputs_of(folder, start, HeavyBall(momentum=Decimal("0.3"))), earlier=earlier
        )
        found, error = merged(folder, inputs)
        assert error < EXACT
        for target in TARGETS:
            products = [dense(local.source, target) for local in inputs.locals]
            mean = np.average(products, axis=0, weights=WEIGHTS)
            carried = 0.3 * (dense(start, target) - dense(earlier, target))
            assert_same(dense(found, target), mean + carried)
            rows = np.linalg.qr(first.module(target)[0].astype(np.float64).T)[0]
            product = dense(found, target)
            assert_same(product @ rows @ rows.T, product)
        earlier, start = start, found


def test_many_silos_and_a_longer_step_lose_nothing_either(tmp_path: Path) -> None:
    """More ranks stacked than are taken apart at once: the sum still has the rank of one."""
    start = write_adapter(tmp_path / "start", LAYOUT, 9)
    inputs = stepped(inputs_of(tmp_path, start, FedExP(), silos=20))
    assert inputs.step is not None and inputs.step > 1
    found, _ = merged(tmp_path, inputs)
    total = sum(WEIGHTS[n % 2] for n in range(20))
    for target in TARGETS:
        begun = dense(start, target)
        mean = sum(local.weight / total * dense(local.source, target) for local in inputs.locals)
        expected = begun + inputs.step * (mean - begun)
        assert_same(dense(found, target), expected)


def test_a_silo_sends_the_square_of_the_rank_for_each_module() -> None:
    """Rank 16 in a layer of width 2048: a 256th."""
    wide = AdapterTarget(module="m.q", in_features=2048, out_features=2048)
    layout = layout_with(rank=16, targets=(wide,))
    sizes = [payload_bytes(adapter_entries(each)) for each in (layout, layout.cores)]
    assert sizes == [16 * 4096 * 4, 16 * 16 * 4]
    assert sizes[0] == 256 * sizes[1]
    assert adapter_bytes_limit(layout.cores) < adapter_bytes_limit(layout) / 40
