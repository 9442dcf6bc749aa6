"""FedExP steps as its paper says, on products, over all modules together."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.merge.adapter_merge import merge_adapters
from aggregator.merge.defence import defended
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.step_formula import step_size
from aggregator.merge.step_size import stepped
from data_contracts.adapters.adapter_format import AdapterFile, open_adapter
from data_contracts.adapters.starting_adapter import narrowed
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.merge_spec import FedExP, HeavyBall, MergeSpec
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
FULL = layout_with(rank=12, alpha=12)
"""Of a rank that no product of the samples exceeds, so that nothing is cut."""
FAR = FedExP(max_step=Decimal(100))


def small_start(directory: Path) -> AdapterFile:
    """Short beside the random products, so that the silos' deltas hardly agree."""
    tensors = {n: t * np.float32(0.3) for n, t in random_tensors(FULL, 99).items()}
    return write_tensors(directory / "start", FULL, tensors)


def of_seeds(directory: Path, seeds: tuple[int, ...] = (1, 2, 3, 4), **merge: Any) -> MergeInputs:
    """Silos of random products, the weight of each its number, from a random start."""
    start = small_start(directory)
    files = [(write_adapter(directory / f"silo-{s}", FULL, s), 10 * s) for s in seeds]
    return inputs_of(files, FULL, start, **({"optimizer": FAR} | merge))


def deltas(inputs: MergeInputs) -> list[np.ndarray]:
    """Of every silo over all modules, dense and flat; zero where it trains no module."""
    found = []
    for adapter in inputs.locals:
        parts = []
        for target in TARGETS:
            if target.module in adapter.modules:
                own = adapter.source.layout
                part = narrowed(inputs.starting, own)
                parts.append(dense(adapter.source, target) - dense(part, target))
            else:
                parts.append(np.zeros((target.out_features, target.in_features)))
        found.append(np.concatenate([part.ravel() for part in parts]))
    return found


def of_the_paper(weights: list[float], changes: list[np.ndarray]) -> float:
    """Equation 6 on dense vectors."""
    own = sum(w * float(d @ d) for w, d in zip(weights, changes, strict=True))
    merged = np.sum([w * d for w, d in zip(weights, changes, strict=True)], axis=0)
    return max(1.0, own / (2 * float(merged @ merged)))


def test_the_step_is_that_of_the_paper(tmp_path: Path) -> None:
    inputs = of_seeds(tmp_path)
    expected = of_the_paper([a.weight / 100 for a in inputs.locals], deltas(inputs))
    assert expected > 1.01
    assert stepped(inputs).step == pytest.approx(expected, abs=1e-6)


def test_the_order_of_the_submissions_does_not_matter(tmp_path: Path) -> None:
    inputs = of_seeds(tmp_path)
    turned = replace(inputs, locals=inputs.locals[::-1])
    one, other = (stepped(defended(value).inputs) for value in (inputs, turned))
    assert one == other
    into = [tmp_path / "one", tmp_path / "other"]
    assert merge_adapters(one, into[0]).adapter == merge_adapters(other, into[1]).adapter


def test_silos_that_agree_step_by_one(tmp_path: Path) -> None:
    assert stepped(of_seeds(tmp_path, seeds=(5, 5, 5))).step == 1.0
    assert stepped(of_seeds(tmp_path, seeds=(5,))).step == 1.0


def test_the_plan_caps_the_step(tmp_path: Path) -> None:
    far = stepped(of_seeds(tmp_path)).step
    assert far is not None and far > 1.1
    near = of_seeds(tmp_path, optimizer=FedExP(max_step=Decimal("1.1")))
    assert stepped(near).step == 1.1


@pytest.mark.parametrize(
    ("own", "merged", "step"),
    [(3, 1, 1.5), (1, 1, 1), (0, 0, 1), (1, 0, 4), (1, 1e-300, 4), (8, 1, 4), (2.0000006, 1, 1)],
)
def test_the_size_of_a_step(own: float, merged: float, step: float) -> None:
    assert step_size(own, merged, 4) == step


def test_every_module_is_stepped_alike_and_momentum_is_added(tmp_path: Path) -> None:
    """start + step x mean delta + momentum x (start - earlier), where nothing is cut."""
    earlier = write_adapter(tmp_path / "earlier", FULL, seed=50)
    optimizer = FedExP(max_step=Decimal(100), momentum=Decimal("0.3"))
    inputs = stepped(replace(of_seeds(tmp_path, optimizer=optimizer), earlier=earlier))
    assert inputs.step == stepped(of_seeds(tmp_path)).step
    into = tmp_path / "merged"
    told = merge_adapters(inputs, into)
    assert told.exactness.error < 1e-5
    merged = open_adapter(into, FULL)
    for target in TARGETS:
        start = dense(inputs.starting, target)
        mean = sum(a.weight / 100 * (dense(a.source, target) - start) for a in inputs.locals)
        expected = start + inputs.step * mean + 0.3 * (start - dense(earlier, target))
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(dense(merged, target), expected, atol=3e-5 * scale)


def test_without_earlier_adapter_momentum_adds_nothing(tmp_path: Path) -> None:
    plain = stepped(of_seeds(tmp_path))
    carried = FedExP(max_step=Decimal(100), momentum=Decimal("0.3"))
    first = stepped(of_seeds(tmp_path, optimizer=carried))
    for target in TARGETS:
        pairs = zip(plain.product_summands(target), first.product_summands(target), strict=True)
        assert all(np.array_equal(a.coefficients, b.coefficients) for a, b in pairs)


NARROW = layout_with(rank=2, alpha=6)
FIRST_MODULE = layout_with(rank=5, alpha=5, targets=TARGETS[:1])


def mixed(directory: Path, **merge: Any) -> MergeInputs:
    """A silo of lower rank, one that trains one module alone, and one that trains everything."""
    start = small_start(directory)
    layouts: list[AdapterLayout] = [NARROW, FIRST_MODULE, FULL]
    files = [write_adapter(directory / f"m-{n}", own, n) for n, own in enumerate(layouts)]
    weighted = list(zip(files, (20, 30, 50), strict=True))
    return inputs_of(weighted, FULL, start, **({"optimizer": FAR} | merge))


def test_mixed_ranks_and_modules_count_where_they_are_trained(tmp_path: Path) -> None:
    inputs = mixed(tmp_path)
    size = TARGETS[0].in_features * TARGETS[0].out_features
    own, merged = 0.0, 0.0
    for module in (slice(0, size), slice(size, None)):
        parts = [(a.weight, d[module]) for a, d in zip(inputs.locals, deltas(inputs), strict=True)]
        total = sum(weight for weight, part in parts if part.any())
        own += sum(weight / total * float(part @ part) for weight, part in parts)
        mean = np.sum([weight / total * part for weight, part in parts], axis=0)
        merged += float(mean @ mean)
    assert own / (2 * merged) > 1.01
    assert stepped(inputs).step == pytest.approx(own / (2 * merged), abs=1e-6)


def test_a_defence_clips_before_the_step_is_chosen(tmp_path: Path) -> None:
    """A silo that is twenty times as loud sets no step: its delta counts as long as the median."""
    robust = {"tolerated_silos": 1, "mixing": "none", "rule": "mean"}
    start = small_start(tmp_path)
    loud = layout_with(rank=12, alpha=240)
    files = [write_adapter(tmp_path / f"silo-{s}", FULL, s) for s in range(4)]
    files.append(write_adapter(tmp_path / "loud", loud, 9))
    inputs = inputs_of([(f, 10) for f in files], FULL, start, optimizer=FAR, robust=robust)
    changes = [
        np.concatenate([(dense(a.source, t) - dense(start, t)).ravel() for t in TARGETS])
        for a in defended(inputs).inputs.locals
    ]
    median = float(np.median([np.linalg.norm(change) for change in changes]))
    clipped = [d * min(1.0, median / float(np.linalg.norm(d))) for d in changes]
    chosen = stepped(defended(inputs).inputs)
    assert chosen.step == pytest.approx(of_the_paper([0.2] * 5, clipped), abs=1e-6)
    assert chosen.step != pytest.approx(of_the_paper([0.2] * 5, changes), abs=1e-3)


def test_other_optimizers_have_no_step(tmp_path: Path) -> None:
    plain = of_seeds(tmp_path, optimizer=HeavyBall())
    assert stepped(plain) is plain
    with pytest.raises(ValueError, match="a step goes with fedexp"):
        merge_adapters(replace(plain, step=1.5), tmp_path / "merged")
    with pytest.raises(ValueError, match="a step goes with fedexp"):
        merge_adapters(of_seeds(tmp_path), tmp_path / "merged")


def test_the_step_is_part_of_what_decides_the_bytes(tmp_path: Path) -> None:
    inputs = stepped(of_seeds(tmp_path))
    assert inputs.fingerprint != replace(inputs, step=1.25).fingerprint
    assert inputs.seed == replace(inputs, step=1.25).seed


def test_the_last_change_is_needed_for_momentum_alone() -> None:
    spec = MergeSpec(rule="stack_truncate", weight_cap_tokens=1, optimizer=FedExP())
    assert not spec.carries_change
    with_momentum = spec.model_copy(update={"optimizer": FedExP(momentum=Decimal("0.3"))})
    assert with_momentum.carries_change
