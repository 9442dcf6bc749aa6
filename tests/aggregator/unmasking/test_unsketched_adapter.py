"""From masked images to an adapter: the start and the mean change beside it, heads as they are."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from aggregator.unmasking.masked_sum import MaskedSum, masked_sum
from aggregator.unmasking.unsketched_adapter import beside, write_unsketched
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.starting_adapter import AdapterSource, narrowed
from data_contracts.errors import UnusableMergeError
from data_contracts.masking.fixed_point import FixedPoint
from data_contracts.masking.masked_file import open_masked
from data_contracts.masking.rebuilt_seeds import RebuiltSeeds
from data_contracts.masking.silo_mask import MaskTerms, OwnPlace
from data_contracts.masking.sketch import SketchedChange, SketchPayload
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from silo_agent.masking.masked_adapter import write_masked
from tests.data_contracts.masking.mask_samples import BINDING, names_of, silos_of
from tests.data_contracts.whole_samples import BIAS, WEIGHT, InMemory, moved

SILOS, NAMES = silos_of(3), names_of(3)
FACTORS = dict(zip(NAMES, (Fraction(1), Fraction(1, 4), Fraction(3, 5)), strict=True))
POINT = FixedPoint(3, Decimal(4))
LAYOUT = AdapterLayout(
    rank=2,
    alpha=8,
    seed=3,
    use_rslora=True,
    targets=(
        AdapterTarget(module="up", in_features=60, out_features=90),
        WEIGHT,
        AdapterTarget(module="small", in_features=5, out_features=4),
        BIAS,
    ),
)
NARROW = LAYOUT.model_copy(update={"rank": 1, "alpha": 2, "use_rslora": False})
PAYLOAD = SketchPayload(LAYOUT, 7, seed=9)
START = InMemory(LAYOUT, moved(50, layout=LAYOUT))


def local_of(number: int) -> AdapterSource:
    layout = NARROW if number == 1 else LAYOUT
    return InMemory(layout, moved(number, layout=layout))


def total_in(folder: Path) -> MaskedSum[SketchPayload]:
    files = {}
    for number, silo in enumerate(NAMES):
        local = local_of(number)
        change = SketchedChange(PAYLOAD, local, narrowed(START, local.layout))
        place = OwnPlace(silo, SILOS.secrets[silo], SILOS.group, NAMES)
        write_masked(folder / silo, change, place, MaskTerms(POINT, FACTORS[silo]), 1)
        files[open_masked(folder / silo, BINDING, silo, PAYLOAD.entries)] = FACTORS[silo]
    seeds = RebuiltSeeds({silo: SILOS.secrets[silo].self_seed for silo in NAMES}, {})
    return masked_sum(SILOS.group, PAYLOAD, POINT, files, seeds)


def product(source: AdapterSource, target: AdapterTarget) -> np.ndarray:
    a, b = source.module(target)
    return source.layout.scaling_of(target) * (b.astype(np.float64) @ a)


def test_the_product_is_the_start_s_and_the_weighted_mean_of_all_changes(tmp_path: Path) -> None:
    total = total_in(tmp_path)
    written = [write_unsketched(tmp_path / f"{n}.out", total, START, n) for n in (1, 3)]
    assert written[0] == written[1]
    assert written[0].adapter == artifact_of_file(tmp_path / "3.out")
    assert written[0].layout == beside(PAYLOAD)
    assert (written[0].layout.rank, written[0].layout.scaling) == (2 + 7, 1.0)
    found = open_adapter(tmp_path / "1.out", written[0].layout)
    for target in LAYOUT.targets:
        wanted = product(START, target)
        for number, silo in enumerate(NAMES):
            local = local_of(number)
            change = product(local, target) - product(narrowed(START, local.layout), target)
            wanted = wanted + float(FACTORS[silo] / sum(FACTORS.values())) * change
        assert np.abs(product(found, target) - wanted).max() < 2e-6


def test_a_pad_that_is_left_or_a_value_that_no_adapter_may_have_leaves_no_file(
    tmp_path: Path,
) -> None:
    total = total_in(tmp_path)
    with pytest.raises(UnusableMergeError, match="in which no pad is left"):
        write_unsketched(tmp_path / "out", replace(total, pads=total.pads[1:]), START, 2)
    far = replace(total, fixed_point=replace(POINT, largest=Decimal(1_000_000)))
    with pytest.raises(UnusableMergeError, match="sum of masked adapters at up"):
        write_unsketched(tmp_path / "out", far, START, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
