"""Above eight silos the error of a merge is estimated on its own stream, with its interval."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aggregator.merge.adapter_merge import AdapterMerge, merge_adapters, merge_on_threads
from aggregator.merge.exactness import (
    EXACT_UP_TO_SILOS,
    PROBES,
    Norms,
    column_squares,
    exactness_of,
    probe_vectors,
)
from aggregator.merge.merge_inputs import MergeInputs
from aggregator.merge.rules import MergedModule
from aggregator.merge.truncation import exact_truncation
from aggregator.merge.weighted_sum import WeightedSum
from data_contracts.adapters.starting_adapter import AdapterSource, Float32Array
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from tests.aggregator.adapter_samples import inputs_of, layout_with, write_adapter

MANY = 12
TARGETS = tuple(
    AdapterTarget(module=f"layer.{i}.q_proj", in_features=96, out_features=80) for i in range(6)
)


def inputs(tmp_path: Path, silos: int, rule: str = "stack_truncate", **extra: Any) -> MergeInputs:
    """Random adapters of rank 8: their sum has the flattest spectrum there is."""
    layout = layout_with(rank=8, targets=TARGETS)
    adapters = [
        (write_adapter(tmp_path / f"{n}.safetensors", layout, seed=n), 100 + n)
        for n in range(silos)
    ]
    return inputs_of(adapters, layout, rule=rule, **extra)


def merged(tmp_path: Path, of: MergeInputs, *, exact: bool = False) -> AdapterMerge:
    of = replace(of, asks_exact_error=exact)
    return merge_adapters(of, tmp_path / f"merged-{exact}", tmp_path / f"state-{exact}")


@pytest.mark.parametrize(
    ("rule", "extra"),
    [("stack_truncate", {}), ("average", {}), ("residual", {"residual_rank": 5})],
)
def test_the_estimate_is_within_its_interval_of_the_exact_error(
    tmp_path: Path, rule: str, extra: dict[str, Any]
) -> None:
    of = inputs(tmp_path, MANY, rule, **extra)
    estimated, exact = merged(tmp_path, of), merged(tmp_path, of, exact=True)
    assert exact.exactness.interval is None
    interval = estimated.exactness.interval
    assert interval is not None
    assert 0 < interval < 0.1 * exact.exactness.error
    # Twice the interval holds in 99.9 % of all draws, and these are fixed ones.
    assert estimated.exactness.error == pytest.approx(exact.exactness.error, abs=2 * interval)
    assert estimated.exactness.discarded_energy == pytest.approx(
        exact.exactness.discarded_energy, rel=0.05
    )
    for (name, found), (_, full) in zip(estimated.modules, exact.modules, strict=True):
        assert found.error == pytest.approx(full.error, rel=0.2), name


@pytest.mark.parametrize("silos", [2, EXACT_UP_TO_SILOS, EXACT_UP_TO_SILOS + 1])
def test_few_silos_are_measured_in_full(tmp_path: Path, silos: int) -> None:
    of = inputs(tmp_path, silos)
    found = merged(tmp_path, of).exactness
    assert (found.interval is None) == (silos <= EXACT_UP_TO_SILOS)
    if silos <= EXACT_UP_TO_SILOS:
        exact = merged(tmp_path, of, exact=True).exactness
        assert found.error == pytest.approx(exact.error, rel=1e-3)


def test_the_sketch_stops_as_near_the_best_error_as_with_the_exact_norm(tmp_path: Path) -> None:
    of = inputs(tmp_path, MANY)
    found = merged(tmp_path, of)
    best = whole = 0.0
    for target in TARGETS:
        chunks = list(WeightedSum(target, of.product_summands(target)).chunks())
        left = torch.cat([chunk.b.to(torch.float64) * chunk.c for chunk in chunks], dim=1)
        right = torch.cat([chunk.a for chunk in chunks]).to(torch.float64)
        pair = exact_truncation(left, right, of.layout.rank, of.layout.scaling)
        best, whole = best + pair.discarded_norm, whole + pair.squared_norm
    exact = merged(tmp_path, of, exact=True).exactness.error
    optimal = (best / whole) ** 0.5
    assert optimal * 0.999 < exact < optimal * 1.01
    assert found.exactness.error == pytest.approx(optimal, rel=0.03)


def test_an_exact_merge_has_no_error_to_estimate(tmp_path: Path) -> None:
    """Twelve copies of one adapter: what is left is rounding."""
    layout = layout_with(rank=8, targets=TARGETS)
    one = write_adapter(tmp_path / "one.safetensors", layout, seed=5)
    for rule in ("stack_truncate", "average"):
        of = inputs_of([(one, 100)] * MANY, layout, rule=rule)
        found = merged(tmp_path, of).exactness
        assert found.error < 1e-5
        assert found.interval is not None and found.interval < 1e-5


@pytest.mark.parametrize("rank", [1, 3, 40])
def test_nineteen_intervals_in_twenty_cover_the_error(rank: int) -> None:
    """A difference of rank one is the hardest: every probe sees it through one number."""
    rng = np.random.default_rng(rank)
    missed, total = (
        [
            torch.from_numpy(rng.standard_normal((80, r)) @ rng.standard_normal((r, 96)))
            for _ in TARGETS
        ]
        for r in (rank, 60)
    )
    norms = [float(m.square().sum()) for m in missed], [float(m.square().sum()) for m in total]
    true = (sum(norms[0]) / sum(norms[1])) ** 0.5
    covered = 0
    for seed in range(200):
        modules = []
        for target, e, m in zip(TARGETS, missed, total, strict=True):
            probes = probe_vectors(seed, target).to(torch.float64)
            assert probes.shape == (target.in_features, PROBES)
            sums, errors = column_squares(m @ probes), column_squares(e @ probes)
            modules.append(Norms.probed(sums, errors, is_cut=False))
        found = exactness_of(modules)
        assert found.interval is not None
        covered += abs(found.error - true) <= found.interval
    assert 178 <= covered <= 198, "0.95 x 200, within four standard deviations"


@dataclass(frozen=True)
class CountedSource:
    """A source that counts how often each module is read."""

    source: AdapterSource
    reads: Counter[str]

    @property
    def layout(self) -> AdapterLayout:
        return self.source.layout

    def module(self, target: AdapterTarget) -> tuple[Float32Array, Float32Array]:
        self.reads[target.module] += 1
        return self.source.module(target)


def reads_of_a_merge(tmp_path: Path, of: MergeInputs) -> Counter[int]:
    """How many modules of all adapters were read how often while the modules were merged."""
    sources = [CountedSource(adapter.source, Counter()) for adapter in of.locals]
    counted = tuple(
        replace(adapter, source=source) for adapter, source in zip(of.locals, sources, strict=True)
    )
    list(merge_on_threads(replace(of, locals=counted), list(range(len(TARGETS)))))
    return Counter(n for source in sources for n in source.reads.values())


def test_an_average_and_its_error_take_one_reading(tmp_path: Path) -> None:
    of = inputs(tmp_path, MANY, "average")
    assert reads_of_a_merge(tmp_path, of) == {1: MANY * len(TARGETS)}
    exact = reads_of_a_merge(tmp_path, replace(of, asks_exact_error=True))
    assert min(exact) > 1


class KilledError(Exception):
    pass


def killed_after(modules: int) -> Any:
    def run(of: MergeInputs, indices: list[int]) -> Iterator[tuple[int, MergedModule]]:
        for done, result in enumerate(merge_on_threads(of, indices)):
            if done == modules:
                raise KilledError
            yield result

    return run


def test_a_merge_that_was_killed_tells_the_same_error(tmp_path: Path) -> None:
    of = inputs(tmp_path, MANY)
    whole = merged(tmp_path, of)
    into = tmp_path / "again"
    with pytest.raises(KilledError):
        merge_adapters(of, into, merge_modules=killed_after(2))
    assert merge_adapters(of, into) == whole
