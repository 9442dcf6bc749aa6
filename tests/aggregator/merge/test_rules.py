"""Every rule does what its paper says, and says how far it is from the true weighted sum."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.adapter_merge import AdapterMerge, merge_adapters
from aggregator.merge.factor_sources import PaddedSource
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.rules import RULES
from aggregator.merge.weighted_sum import Float64Array
from data_contracts.adapters.adapter_format import (
    AdapterFile,
    lora_a_name,
    lora_b_name,
    open_adapter,
)
from data_contracts.adapters.starting_adapter import (
    AdapterSource,
    InitialAdapter,
    narrowed,
    tensors_of,
)
from data_contracts.errors import FederationOperatorError, UnusableMergeError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.merge_spec import FedAvg, MergeRule
from tests.aggregator.adapter_samples import (
    TARGETS,
    dense,
    inputs_of,
    layout_with,
    random_tensors,
    write_adapter,
    write_tensors,
)

WEIGHTS = (100, 300, 600)
SHARES = tuple(weight / 1000 for weight in WEIGHTS)


def three(
    tmp_path: Path, layouts: list[AdapterLayout], frozen: dict[str, AdapterSource] | None = None
) -> list[tuple[AdapterFile, int]]:
    """Random adapters; the factors named in `frozen` ("a", "b") are those of the source."""
    adapters = []
    for number, (layout, weight) in enumerate(zip(layouts, WEIGHTS, strict=True)):
        tensors = random_tensors(layout, seed=number)
        for factor, source in (frozen or {}).items():
            for target in layout.targets:
                name = (lora_a_name if factor == "a" else lora_b_name)(target.module)
                tensors[name] = source.module(target)["ab".index(factor)]
        path = tmp_path / f"{number}.safetensors"
        adapters.append((write_tensors(path, layout, tensors), weight))
    return adapters


def merged(tmp_path: Path, inputs: MergeInputs) -> tuple[AdapterMerge, AdapterFile]:
    into = tmp_path / "merged.safetensors"
    result = merge_adapters(inputs, into, tmp_path / "residual.safetensors")
    return result, open_adapter(into, inputs.layout)


def true_sum(adapters: list[tuple[AdapterFile, int]], target: AdapterTarget) -> Float64Array:
    total: Float64Array = np.sum([w / 1000 * dense(a, target) for a, w in adapters], axis=0)
    return total


def distance(found: Float64Array, expected: Float64Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("rule", ["average", "stack_truncate", "residual"])
def test_the_error_that_a_merge_reports_is_the_one_it_has(tmp_path: Path, rule: str) -> None:
    layout = layout_with()
    adapters = three(tmp_path, [layout] * 3)
    extra: dict[str, Any] = {"residual_rank": 4} if rule == "residual" else {}
    result, file = merged(tmp_path, inputs_of(adapters, layout, rule=rule, **extra))
    squares = []
    for target, (name, exactness) in zip(TARGETS, result.modules, strict=True):
        found = dense(file, target)
        if rule == "residual":
            of_residual = layout_with(rank=4, alpha=4)
            found = found + dense(
                open_adapter(tmp_path / "residual.safetensors", of_residual), target
            )
        expected = true_sum(adapters, target)
        assert name == target.module
        assert exactness.error == pytest.approx(distance(found, expected), rel=1e-4)
        squares.append([np.sum((found - expected) ** 2), np.sum(expected**2)])
    overall = np.sum(squares, axis=0)
    assert result.exactness.error == pytest.approx(np.sqrt(overall[0] / overall[1]), rel=1e-4)
    assert result.exactness.error > 0.01


def test_averaging_factors_misses_exactly_the_products_of_their_deviations(tmp_path: Path) -> None:
    layout = layout_with()
    adapters = three(tmp_path, [layout] * 3)
    _, file = merged(tmp_path, inputs_of(adapters, layout, rule="average"))
    for target in TARGETS:
        factors = [[f.astype(float) for f in a.module(target)] for a, _ in adapters]
        mean_a, mean_b = (
            sum(w * f[i] for w, f in zip(SHARES, factors, strict=True)) for i in (0, 1)
        )
        np.testing.assert_allclose(file.module(target)[0], mean_a, atol=1e-6)
        np.testing.assert_allclose(file.module(target)[1], mean_b, atol=1e-6)
        deviations = [
            w * (b - mean_b) @ (a - mean_a) for w, (a, b) in zip(SHARES, factors, strict=True)
        ]
        missed = layout.scaling * np.sum(deviations, axis=0)
        np.testing.assert_allclose(
            true_sum(adapters, target) - dense(file, target), missed, atol=1e-5
        )


@pytest.mark.parametrize(
    ("rule", "round_number", "frozen"),
    [
        ("frozen_a", 2, "a"),
        ("alternating", 1, "a"),
        ("alternating", 2, "b"),
        ("fedsvd", 3, "a"),
    ],
)
def test_rules_with_a_shared_factor_are_exact(
    tmp_path: Path, rule: MergeRule, round_number: int, frozen: str
) -> None:
    layout = layout_with()
    start = write_adapter(tmp_path / "start.safetensors", layout, seed=9)
    adapters = three(tmp_path, [layout] * 3, {frozen: start})
    inputs = inputs_of(adapters, layout, start, round_number, rule=rule)
    result, file = merged(tmp_path, inputs)
    assert result.exactness.error < 1e-6
    for target in TARGETS:
        np.testing.assert_allclose(dense(file, target), true_sum(adapters, target), atol=1e-4)
        a, b = file.module(target)
        if rule == "fedsvd":
            np.testing.assert_allclose(a @ a.T, np.eye(layout.rank) / 3, atol=1e-6)
        else:
            kept = (a, b)["ab".index(frozen)]
            assert kept.tobytes() == start.module(target)["ab".index(frozen)].tobytes()


def test_the_residual_makes_the_average_exact_when_its_rank_suffices(tmp_path: Path) -> None:
    layout, of_residual = layout_with(), layout_with(rank=12, alpha=12)
    before = write_adapter(tmp_path / "before.safetensors", of_residual, seed=77)
    adapters = three(tmp_path, [layout] * 3)
    inputs = inputs_of(adapters, layout, rule="residual", residual_rank=12, residual=before)
    _, file = merged(tmp_path, inputs)
    after = open_adapter(tmp_path / "residual.safetensors", of_residual)
    for target in TARGETS[:1]:  # of the other module the residual so far fills the rank
        found = dense(file, target) + dense(after, target)
        expected = true_sum(adapters, target) + dense(before, target)
        if min(expected.shape) <= 12:
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_zero_padding_is_the_average_of_padded_factors(tmp_path: Path) -> None:
    layout = layout_with(rank=4, alpha=8)
    adapters = three(tmp_path, [layout_with(2, 3), layout_with(3, 6), layout_with(4, 8)])
    result, file = merged(tmp_path, inputs_of(adapters, layout, rule="zero_pad"))
    for target in TARGETS:
        padded = [PaddedSource(a, layout).module(target) for a, _ in adapters]
        for position in (0, 1):
            mean = sum(w * p[position] for w, p in zip(SHARES, padded, strict=True))
            np.testing.assert_allclose(file.module(target)[position], mean, atol=1e-6)
    assert result.exactness.error > 0.1


def test_a_narrow_silo_takes_away_only_the_part_that_it_started_from(tmp_path: Path) -> None:
    layout, narrow = layout_with(rank=4, alpha=4), layout_with(rank=2, alpha=6)
    start = write_adapter(tmp_path / "start.safetensors", layout, seed=5)
    adapters = three(tmp_path, [narrow, layout, narrow])
    wide = layout_with(rank=10, alpha=10)
    _, file = merged(tmp_path, inputs_of(adapters, wide, start))
    for target in TARGETS:
        expected = dense(start, target)
        for adapter, weight in adapters:
            own_start = narrowed(start, adapter.layout)
            expected = expected + weight / 1000 * (
                dense(adapter, target) - dense(own_start, target)
            )
        np.testing.assert_allclose(dense(file, target), expected, atol=1e-4)


def test_modules_that_only_some_silos_train(tmp_path: Path) -> None:
    layout, only_first = (
        layout_with(rank=6, alpha=6),
        layout_with(rank=6, alpha=6, targets=TARGETS[:1]),
    )
    start = write_adapter(tmp_path / "start.safetensors", layout, seed=5)
    adapters = three(tmp_path, [only_first, only_first, layout])
    wide = layout.model_copy(update={"rank": 18, "alpha": 18})
    _, file = merged(tmp_path, inputs_of(adapters, wide, start))
    np.testing.assert_allclose(dense(file, TARGETS[0]), true_sum(adapters, TARGETS[0]), atol=1e-4)
    np.testing.assert_allclose(
        dense(file, TARGETS[1]), dense(adapters[2][0], TARGETS[1]), atol=1e-4
    )
    same = layout_with(rank=6, alpha=6)
    _, file = merged(tmp_path, inputs_of(adapters[:2], same, start))
    for found, kept in zip(file.module(TARGETS[1]), start.module(TARGETS[1]), strict=True):
        assert found.tobytes() == kept.tobytes()


def test_a_server_learning_rate_goes_part_of_the_way(tmp_path: Path) -> None:
    from decimal import Decimal

    layout, wide = layout_with(rank=3, alpha=3), layout_with(rank=12, alpha=12)
    start = write_adapter(tmp_path / "start.safetensors", layout, seed=5)
    adapters = three(tmp_path, [layout] * 3)
    half = FedAvg(learning_rate=Decimal("0.5"))
    _, file = merged(tmp_path, inputs_of(adapters, wide, start, optimizer=half))
    for target in TARGETS:
        expected = (dense(start, target) + true_sum(adapters, target)) / 2
        np.testing.assert_allclose(dense(file, target), expected, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    alphas=st.lists(st.integers(1, 64), min_size=5, max_size=5),
    missing=st.lists(st.booleans(), min_size=5, max_size=5),
    use_rslora=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_any_mix_of_ranks_alphas_modules_and_orders_is_the_weighted_sum(
    tmp_path_factory: pytest.TempPathFactory,
    ranks: list[int],
    alphas: list[int],
    missing: list[bool],
    use_rslora: bool,
    order: Any,
) -> None:
    directory = tmp_path_factory.mktemp("mix")
    adapters = []
    for number, (rank, alpha, lacks) in enumerate(zip(ranks, alphas, missing, strict=False)):
        targets = TARGETS[:1] if lacks else TARGETS
        layout = layout_with(rank, alpha, targets).model_copy(update={"use_rslora": use_rslora})
        adapters.append((write_adapter(directory / str(number), layout, seed=number), 1 + number))
    order.shuffle(adapters)
    wide = layout_with(rank=sum(ranks), alpha=7).model_copy(update={"use_rslora": use_rslora})
    _, file = merged(directory, inputs_of(adapters, wide))
    for target in TARGETS:
        having = [(a, w) for a, w in adapters if target in a.layout.targets]
        if having:
            total = sum(w for _, w in having)
            expected = np.sum([w / total * dense(a, target) for a, w in having], axis=0)
            assert distance(dense(file, target), expected) < 1e-5


def test_one_full_batch_step_per_silo_is_one_centralised_step(tmp_path: Path) -> None:
    """With B trained alone, the mean of the silos' steps is the step on all data (eta 1)."""
    target = TARGETS[0]
    layout = layout_with(rank=4, alpha=4, targets=(target,))
    start = InitialAdapter(layout)
    a, b = (factor.astype(float) for factor in start.module(target))
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((60, target.in_features)), rng.standard_normal((60, 10))

    def step(rows: slice) -> Float64Array:
        hidden = x[rows] @ a.T
        gradient: Float64Array = (hidden @ b.T - y[rows]).T @ hidden / len(hidden)
        stepped: Float64Array = b - gradient
        return stepped

    adapters = []
    for number, (first, last) in enumerate(((0, 10), (10, 30), (30, 60))):
        tensors = {
            lora_a_name(target.module): start.module(target)[0],
            lora_b_name(target.module): step(slice(first, last)).astype(np.float32),
        }
        path = tmp_path / f"{number}.safetensors"
        adapters.append((write_tensors(path, layout, tensors), last - first))
    _, file = merged(tmp_path, inputs_of(adapters, layout, rule="frozen_a"))
    np.testing.assert_allclose(file.module(target)[1], step(slice(0, 60)), atol=1e-6)


def test_every_rule_of_the_plan_exists_and_no_other() -> None:
    assert set(RULES) == set(MergeRule.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("rule", ["average", "frozen_a", "fedsvd"])
def test_rules_of_one_layout_refuse_several(tmp_path: Path, rule: str) -> None:
    adapters = three(tmp_path, [layout_with(), layout_with(rank=2), layout_with()])
    with pytest.raises(FederationOperatorError, match="one layout for all silos"):
        merged(tmp_path, inputs_of(adapters, layout_with(), rule=rule))


def test_padding_refuses_a_rank_above_that_of_the_merge(tmp_path: Path) -> None:
    adapters = three(tmp_path, [layout_with(), layout_with(rank=5), layout_with()])
    with pytest.raises(FederationOperatorError, match="ranks of at most 3"):
        merged(tmp_path, inputs_of(adapters, layout_with(), rule="zero_pad"))


@pytest.mark.parametrize("rule", ["average", "stack_truncate"])
@pytest.mark.parametrize("rank", [3, 30])
def test_deltas_that_cancel_everywhere_are_not_written(
    tmp_path: Path, rule: str, rank: int
) -> None:
    """Exactly, or up to what rounding leaves of them."""
    layout = layout_with(rank=rank)
    one = write_adapter(tmp_path / "one.safetensors", layout)
    opposite = random_tensors(layout, 0)
    for target in TARGETS:
        opposite[lora_b_name(target.module)] *= -1
    other = write_tensors(tmp_path / "two.safetensors", layout, opposite)
    with pytest.raises(UnusableMergeError, match="the silos' deltas cancel"):
        merged(tmp_path, inputs_of([(one, 5), (other, 5)], layout, rule=rule))
    assert not (tmp_path / "merged.safetensors").exists()


def test_what_every_gate_would_refuse_is_not_written_and_names_the_adapter(tmp_path: Path) -> None:
    """FedSVD gathers the columns of B: three of them within the limit become one beyond it."""
    layout = layout_with()
    start = InitialAdapter(layout)
    files = []
    for number, value in enumerate((0.5, 9e3)):
        tensors = tensors_of(start)
        for target in TARGETS:
            name = lora_b_name(target.module)
            tensors[name] = np.full_like(tensors[name], value)
        files.append(write_tensors(tmp_path / f"{number}.safetensors", layout, tensors))
    inputs = inputs_of([(files[0], 1), (files[1], 1000)], layout, start, rule="fedsvd")
    digest = artifact_of_file(files[1].path).digest[:16]
    with pytest.raises(FederationOperatorError, match=f"that of adapter {digest}"):
        merged(tmp_path, inputs)
    assert not (tmp_path / "merged.safetensors").exists()


def test_an_exact_merge_of_many_silos_says_that_it_is_exact(tmp_path: Path) -> None:
    """Where the sketch takes over, and the norm's own rounding would show as an error."""
    wide = (AdapterTarget(module="up", in_features=200, out_features=180),)
    layout = layout_with(rank=4, alpha=4, targets=wide)
    one = random_tensors(layout, 5)
    adapters = []
    for number in range(20):
        tensors = {name: values.copy() for name, values in one.items()}
        tensors[lora_b_name("up")] *= 1 + number / 7
        path = tmp_path / f"{number}.safetensors"
        adapters.append((write_tensors(path, layout, tensors), 1 + number))
    result, file = merged(tmp_path, inputs_of(adapters, layout))
    total = sum(weight for _, weight in adapters)
    expected = np.sum([w / total * dense(a, wide[0]) for a, w in adapters], axis=0)
    assert distance(dense(file, wide[0]), expected) < 1e-6
    assert result.exactness.error < 1e-6
