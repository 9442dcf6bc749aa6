"""With `rank_weights = trained` each rank is averaged over the silos whose own rank reaches it."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.defence import defended
from aggregator.merge.merge_inputs import LocalAdapter, MergeInputs
from aggregator.merge.step_size import stepped
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.merge_spec import FedExP, HeavyBall, MergeSpec
from tests.aggregator.adapter_samples import TARGETS, dense, inputs_of, layout_with, write_adapter

FULL = layout_with(rank=12, alpha=12)
RANKS = (2, 5, 12)
WEIGHTS = (20, 30, 50)
ENDS = ((0, 2), (2, 5), (5, 12))
TRAINED: dict[str, Any] = {"rank_weights": "trained"}


def mixed(directory: Path, **merge: Any) -> MergeInputs:
    """Silos of ranks 2, 5 and 12 with scalings of their own; the second trains one module alone."""
    start = write_adapter(directory / "start", FULL, seed=99)
    files = []
    for number, rank in enumerate(RANKS):
        targets = TARGETS[:1] if number == 1 else TARGETS
        layout = layout_with(rank=rank, alpha=2 * rank if number == 0 else rank, targets=targets)
        files.append(write_adapter(directory / f"silo-{number}", layout, number))
    return inputs_of(zip(files, WEIGHTS, strict=True), FULL, start, **(TRAINED | merge))


def part(source: AdapterSource, target: AdapterTarget, first: int, end: int) -> np.ndarray:
    """The product of some of a source's ranks."""
    a, b = (factor.astype(np.float64) for factor in source.module(target))
    return source.layout.scaling * (b[:, first:end] @ a[first:end])


def mean_delta(
    inputs: MergeInputs, target: AdapterTarget, root: LocalAdapter | None = None
) -> np.ndarray:
    """Slice by slice over the silos that cover it; of `root` alone, by the roots of its weights."""
    total = np.zeros((target.out_features, target.in_features))
    for first, end in ENDS:
        covering = [a for a in inputs.trainers(target) if a.source.layout.rank >= end]
        tokens = sum(a.weight for a in covering)
        for adapter in covering:
            share = adapter.weight / tokens
            weight = share if root is None else share**0.5 * (adapter is root)
            own = part(adapter.source, target, first, end)
            total += weight * (own - part(inputs.starting, target, first, end))
    return total


def require_merged(
    inputs: MergeInputs, into: Path, expected: dict[AdapterTarget, np.ndarray]
) -> None:
    told = merge_adapters(inputs, into)
    assert told.exactness.error < 1e-5
    merged = open_adapter(into, FULL)
    for target, product in expected.items():
        scale = float(np.abs(product).max())
        np.testing.assert_allclose(dense(merged, target), product, atol=3e-5 * scale)


def test_each_rank_is_averaged_over_the_silos_that_train_it(tmp_path: Path) -> None:
    inputs = mixed(tmp_path)
    expected = {t: dense(inputs.starting, t) + mean_delta(inputs, t) for t in TARGETS}
    require_merged(inputs, tmp_path / "merged", expected)


def test_without_it_a_low_rank_takes_weight_from_ranks_that_it_does_not_train(
    tmp_path: Path,
) -> None:
    inputs = mixed(tmp_path, rank_weights=None)
    target = TARGETS[1]
    shares = {2: 2 / 7, 12: 5 / 7}
    expected = dense(inputs.starting, target) + sum(
        share * (dense(a.source, target) - part(inputs.starting, target, 0, rank))
        for rank, share in shares.items()
        for a in inputs.locals
        if a.source.layout.rank == rank
    )
    require_merged(inputs, tmp_path / "merged", {target: expected})


def test_ranks_that_no_admitted_silo_reaches_stay_as_they_were(tmp_path: Path) -> None:
    inputs = mixed(tmp_path)
    inputs = replace(inputs, locals=tuple(a for a in inputs.locals if a.source.layout.rank < 12))
    target = TARGETS[1]
    only = next(a for a in inputs.locals if a.source.layout.rank == 2)
    expected = dense(only.source, target) + part(inputs.starting, target, 2, 12)
    require_merged(inputs, tmp_path / "merged", {target: expected})


def test_momentum_and_the_rate_go_with_it(tmp_path: Path) -> None:
    ball = HeavyBall(learning_rate=Decimal("0.8"), momentum=Decimal("0.5"))
    earlier = write_adapter(tmp_path / "earlier", FULL, seed=8)
    inputs = replace(mixed(tmp_path, optimizer=ball), earlier=earlier)
    expected = {}
    for target in TARGETS:
        start = dense(inputs.starting, target)
        change = 0.8 * mean_delta(inputs, target) + 0.5 * (start - dense(earlier, target))
        expected[target] = start + change
    require_merged(inputs, tmp_path / "merged", expected)


def test_the_step_counts_each_rank_by_its_own_weight(tmp_path: Path) -> None:
    """|sum of the roots of the weights x delta|^2, which for one weight is w_i |delta_i|^2."""
    inputs = mixed(tmp_path, optimizer=FedExP(max_step=Decimal(100)))
    own = sum(
        float((mean_delta(inputs, target, root=adapter) ** 2).sum())
        for target in TARGETS
        for adapter in inputs.trainers(target)
    )
    merged = sum(float((mean_delta(inputs, target) ** 2).sum()) for target in TARGETS)
    found = stepped(inputs).step
    assert found == pytest.approx(max(1.0, own / (2 * merged)), abs=1e-6)


def test_with_one_rank_everywhere_it_changes_no_byte(tmp_path: Path) -> None:
    files = [(write_adapter(tmp_path / f"{n}", FULL, n), 10 + n) for n in range(3)]
    plain, trained = inputs_of(files, FULL), inputs_of(files, FULL, **TRAINED)
    one, other = (
        merge_adapters(value, tmp_path / f"merged-{n}") for n, value in enumerate((plain, trained))
    )
    assert one.adapter == other.adapter


def test_the_order_of_the_submissions_does_not_matter(tmp_path: Path) -> None:
    inputs = mixed(tmp_path)
    turned = replace(inputs, locals=inputs.locals[::-1])
    one, other = (defended(value).inputs for value in (inputs, turned))
    first, second = merge_adapters(one, tmp_path / "one"), merge_adapters(other, tmp_path / "other")
    assert first.adapter == second.adapter


def test_it_goes_with_stacked_products_alone() -> None:
    with pytest.raises(ValidationError, match="they need stack_truncate"):
        MergeSpec.model_validate({"rule": "zero_pad", "weight_cap_tokens": 1} | TRAINED)


def test_a_plan_without_it_is_written_as_before() -> None:
    plain = MergeSpec(rule="stack_truncate", weight_cap_tokens=1)
    assert "rank_weights" not in plain.model_dump(mode="json")
    trained = plain.model_copy(update=TRAINED)
    assert trained.model_dump(mode="json")["rank_weights"] == "trained"
