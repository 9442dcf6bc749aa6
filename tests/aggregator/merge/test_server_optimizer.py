"""Server optimizers act on the product, as their papers and torch.optim say, over restarts."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch

from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.server_optimizer import State, server_step, state_names
from aggregator.merge.server_state import open_server_state
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.starting_adapter import narrowed
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.merge_spec import (
    DiLoCo,
    FedAdam,
    FedAvgM,
    HeavyBall,
    StatefulOptimizer,
)
from tests.aggregator.adapter_samples import TARGETS, dense, inputs_of, layout_with, write_adapter

LAYOUT = layout_with(rank=3, alpha=3)
FULL = layout_with(rank=12, alpha=12)
"""Of a rank that no product of the samples exceeds, so that nothing is cut."""


def matrices(rounds: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(7, 5, generator=generator) for _ in range(rounds)]


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (DiLoCo(), {"lr": 0.7, "momentum": 0.9, "nesterov": True}),
        (FedAvgM(), {"lr": 1.0, "momentum": 0.9}),
    ],
)
def test_momentum_is_that_of_torch_bit_for_bit(
    optimizer: StatefulOptimizer, options: dict[str, float]
) -> None:
    start, *deltas = matrices(5)
    weights = torch.nn.Parameter(start.clone())
    oracle = torch.optim.SGD([weights], **options)  # type: ignore[arg-type]
    product = start
    state: State = ()
    for delta in deltas:
        weights.grad = -delta
        oracle.step()
        product, state = server_step(optimizer, product, delta, state)
        assert torch.equal(product, weights.detach())


def test_momentum_of_zero_is_federated_averaging() -> None:
    start, delta, other = matrices(3)
    plain = start + delta
    still, state = server_step(FedAvgM(momentum=Decimal(0)), start, delta, ())
    assert torch.equal(plain, still)
    again, _ = server_step(FedAvgM(momentum=Decimal(0)), still, other, state)
    assert torch.equal(again, plain + other)


def test_adam_is_the_papers_second_algorithm() -> None:
    start, *deltas = matrices(4)
    optimizer = FedAdam(learning_rate=Decimal("0.1"))
    product = start
    state: State = ()
    x, m = start.double().numpy(), np.zeros((7, 5))
    v = np.full((7, 5), 0.001**2)
    for delta in deltas:
        product, state = server_step(optimizer, product, delta, state)
        d = delta.double().numpy()
        m, v = 0.9 * m + 0.1 * d, 0.99 * v + 0.01 * d**2
        x = x + 0.1 * m / (np.sqrt(v) + 0.001)
        np.testing.assert_allclose(product.numpy(), x, atol=1e-5)


def one_round(directory: Path, number: int, inputs: MergeInputs) -> tuple[Path, Path]:
    into, beside = directory / f"adapter-{number}", directory / f"state-{number}"
    merge_adapters(inputs, into, beside)
    return into, beside


@pytest.mark.parametrize("optimizer", [DiLoCo(), FedAvgM(), FedAdam()])
def test_the_state_goes_on_through_files(tmp_path: Path, optimizer: StatefulOptimizer) -> None:
    """Three merges, each from files alone, are three steps on the dense products."""
    start = write_adapter(tmp_path / "start", FULL, seed=9)
    products = {t: torch.tensor(dense(start, t), dtype=torch.float32) for t in TARGETS}
    states: dict[AdapterTarget, State] = dict.fromkeys(TARGETS, ())
    state_file = None
    for number in range(3):
        paths = [tmp_path / f"{number}-{silo}" for silo in range(2)]
        adapters = [(write_adapter(p, FULL, 10 * number + i), 5) for i, p in enumerate(paths)]
        inputs = inputs_of(adapters, FULL, start, optimizer=optimizer)
        if state_file is not None:
            inputs = replace(inputs, server_state=open_server_state(state_file, FULL, optimizer))
        into, state_file = one_round(tmp_path, number, inputs)
        new = open_adapter(into, FULL)
        for target in TARGETS:
            mean = sum(dense(adapter, target) for adapter, _ in adapters) / 2
            delta = torch.tensor(mean - dense(start, target), dtype=torch.float32)
            products[target], states[target] = server_step(
                optimizer, products[target], delta, states[target]
            )
            scale = float(products[target].abs().max())
            np.testing.assert_allclose(
                dense(new, target), products[target].numpy(), atol=3e-5 * scale
            )
        start = new


def test_a_heavy_ball_is_momentum_without_a_state(tmp_path: Path) -> None:
    """Where nothing is cut, three rounds are those of momentum on the dense products."""
    ball = HeavyBall(learning_rate=Decimal("0.8"), momentum=Decimal("0.5"))
    start, earlier = write_adapter(tmp_path / "start", FULL, seed=9), None
    weights = {t: torch.nn.Parameter(torch.tensor(dense(start, t))) for t in TARGETS}
    oracles = {t: torch.optim.SGD([w], lr=0.8, momentum=0.5) for t, w in weights.items()}
    for number in range(3):
        paths = [tmp_path / f"{number}-{silo}" for silo in range(2)]
        adapters = [(write_adapter(p, FULL, 10 * number + i), 5) for i, p in enumerate(paths)]
        inputs = replace(inputs_of(adapters, FULL, start, optimizer=ball), earlier=earlier)
        into, state = one_round(tmp_path, number, inputs)
        assert not state.exists()
        new = open_adapter(into, FULL)
        for target in TARGETS:
            mean = sum(dense(adapter, target) for adapter, _ in adapters) / 2
            weights[target].grad = torch.tensor(dense(start, target) - mean)
            oracles[target].step()
            expected = weights[target].detach().numpy()
            scale = float(np.abs(expected).max())
            np.testing.assert_allclose(dense(new, target), expected, atol=3e-5 * scale)
        start, earlier = new, start


def test_a_heavy_ball_carries_the_whole_change_beside_silos_of_lower_rank(tmp_path: Path) -> None:
    start = write_adapter(tmp_path / "start", FULL, seed=9)
    earlier = write_adapter(tmp_path / "earlier", FULL, seed=8)
    narrow = write_adapter(tmp_path / "narrow", LAYOUT, seed=1)
    wide = write_adapter(tmp_path / "wide", FULL, seed=2)
    inputs = inputs_of([(narrow, 1), (wide, 3)], FULL, start, optimizer=HeavyBall())
    into, _ = one_round(tmp_path, 1, replace(inputs, earlier=earlier))
    found = open_adapter(into, FULL)
    for target in TARGETS:
        of_start = dense(start, target)
        deltas = 0.25 * (dense(narrow, target) - dense(narrowed(start, LAYOUT), target))
        deltas += 0.75 * (dense(wide, target) - of_start)
        expected = of_start + deltas + 0.3 * (of_start - dense(earlier, target))
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(dense(found, target), expected, atol=3e-5 * scale)


def test_a_state_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    adapters = [(write_adapter(tmp_path / "one", LAYOUT), 5)]
    _, state = one_round(tmp_path, 1, inputs_of(adapters, LAYOUT, optimizer=DiLoCo()))
    assert state_names(FedAvgM()) == state_names(DiLoCo())
    with pytest.raises(UntrustedInputError, match="tensor names"):
        open_server_state(state, LAYOUT, FedAdam())
    other = layout_with(targets=TARGETS[:1])
    with pytest.raises(UntrustedInputError, match="tensor names"):
        open_server_state(state, other, DiLoCo())
    data = bytearray(state.read_bytes())
    data[-4:] = np.float32(np.nan).tobytes()
    state.write_bytes(data)
    with pytest.raises(UntrustedInputError, match="finite values"):
        open_server_state(state, LAYOUT, DiLoCo()).module(TARGETS[-1])
    state.write_bytes(data[:-4])
    with pytest.raises(UntrustedInputError, match="bytes"):
        open_server_state(state, LAYOUT, DiLoCo())


def test_federated_averaging_leaves_no_state(tmp_path: Path) -> None:
    adapters = [(write_adapter(tmp_path / "one", LAYOUT), 5)]
    _, state = one_round(tmp_path, 1, inputs_of(adapters, LAYOUT))
    assert not state.exists()
