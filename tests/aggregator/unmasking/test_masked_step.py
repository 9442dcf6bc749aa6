"""The step from masked sums is that of the adapters themselves, to the fixed point's rounding."""

from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from aggregator.merge.merge_inputs import LocalAdapter, MergeInputs, sorted_locals
from aggregator.merge.step_size import measured_norms, stepped
from aggregator.unmasking.masked_sum import masked_sum
from aggregator.unmasking.unmasked_adapter import write_unmasked
from aggregator.unmasking.unsketched_adapter import write_unsketched
from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.core_bases import UnmovedCores, WithBases
from data_contracts.adapters.starting_adapter import AdapterSource, narrowed, tensors_of
from data_contracts.masking.extra_numbers import SQUARED_NORM, ExtraNumber
from data_contracts.masking.fixed_point import FixedPoint
from data_contracts.masking.masked_file import open_masked
from data_contracts.masking.payload import Change, CoreChange, Payload
from data_contracts.masking.rebuilt_seeds import RebuiltSeeds
from data_contracts.masking.silo_mask import MaskTerms, OwnPlace
from data_contracts.masking.sketch import SketchedChange, SketchPayload
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.merge_spec import FedExP, MergeRule, MergeSpec
from silo_agent.masking.masked_adapter import write_masked
from tests.data_contracts.masking.mask_samples import BINDING, names_of, silos_of
from tests.data_contracts.whole_samples import LAYOUT, InMemory, moved

SILOS, NAMES = silos_of(5), names_of(5)
WEIGHTS = dict(zip(NAMES, (700, 1000, 250, 999, 400), strict=True))
POINT = FixedPoint(5, Decimal(2))
CLIP = Decimal(30)
FAR = FedExP(max_step=Decimal(100))
NARROW = LAYOUT.model_copy(update={"rank": 1, "alpha": 3})
EXTRAS = (ExtraNumber(SQUARED_NORM, CLIP * CLIP, degree=2),)


@dataclass(frozen=True)
class Played:
    """What silos trained, as a merge sees it, and the step from the sum of what they masked."""

    starting: AdapterSource
    locals: dict[str, AdapterSource]
    step: float


def changed(layout: AdapterLayout, seed: int, start: AdapterSource) -> InMemory:
    """Steps of `seed` from the start, which has that layout."""
    begun, steps = tensors_of(start), moved(seed, layout=layout)
    first = moved(seed, 0, layout=layout)
    return InMemory(layout, {n: begun[n] + (steps[n] - first[n]) for n in begun})


def spec(rule: MergeRule) -> MergeSpec:
    return MergeSpec(rule=rule, weight_cap_tokens=10**6, optimizer=FAR)


def played(
    folder: Path, rule: MergeRule, clip: Decimal = CLIP, gone: tuple[str, ...] = ("silo-03",)
) -> Played:
    layout = {"shared_a": LAYOUT.a_alone}.get(rule, LAYOUT)
    start: AdapterSource = InMemory(layout, moved(99, layout=layout))
    payload: Payload | SketchPayload
    payload = Payload(LAYOUT.cores if rule == "fed_sb" else layout, "both", EXTRAS)
    if rule == "sketch":
        payload = SketchPayload(LAYOUT, 5 * LAYOUT.rank + LAYOUT.rank, 3, EXTRAS)
    seen, survivors = {}, {}
    for number, silo in enumerate(NAMES):
        if silo in gone:
            continue
        change, seen[silo] = change_of(rule, payload, start, number)
        change = replace(change, extras={SQUARED_NORM: change.norm() ** 2})
        place = OwnPlace(silo, SILOS.secrets[silo], SILOS.group, NAMES)
        factor = Fraction(WEIGHTS[silo], 1000)
        write_masked(folder / silo, change, place, MaskTerms(POINT, factor, clip), 1)
        survivors[open_masked(folder / silo, BINDING, silo, payload.entries)] = factor
    secrets = SILOS.secrets
    seeds = RebuiltSeeds(
        {s: secrets[s].self_seed for s in seen}, {s: secrets[s].mask_seed for s in gone}
    )
    mean: AdapterSource
    path = folder / "mean"
    if isinstance(payload, SketchPayload):
        images = masked_sum(SILOS.group, payload, POINT, survivors, seeds)
        found = write_unsketched(path, images, start, 2)
        mean, extras = open_adapter(path, found.layout), found.extras
    else:
        total = masked_sum(SILOS.group, payload, POINT, survivors, seeds)
        begun = UnmovedCores(start) if rule == "fed_sb" else start
        extras = write_unmasked(path, total, begun, 2).extras
        mean = open_adapter(path, payload.layout)
        mean = WithBases(start, mean) if rule == "fed_sb" else mean
    one = (LocalAdapter(mean, "mean", 1),)
    inputs = MergeInputs(start.layout, spec(rule), 2, one, start)
    norms = measured_norms(inputs, extras[SQUARED_NORM])
    step = stepped(inputs, norms).step
    assert step is not None
    return Played(start, seen, step)


def change_of(
    rule: MergeRule, payload: Payload | SketchPayload, start: AdapterSource, number: int
) -> tuple[Change | SketchedChange, AdapterSource]:
    """What a silo masks, and its adapter as a merge would see it."""
    if isinstance(payload, SketchPayload):
        layout = NARROW if number == 1 else LAYOUT
        local = changed(layout, number, narrowed(start, layout))
        return SketchedChange(payload, local, narrowed(start, layout)), local
    if rule == "fed_sb":
        unmoved = UnmovedCores(start)
        cores = changed(LAYOUT.cores, number, unmoved)
        return CoreChange(payload, cores, unmoved, {}, start), WithBases(start, cores)
    local = changed(start.layout, number, start)
    return Change(payload, local, start, {}), local


def seen_step(rule: MergeRule, found: Played) -> float:
    """As the coordinator of auditable mode takes it from the adapters themselves."""
    same: MergeRule = "stack_truncate" if rule == "sketch" else rule
    locals_ = [LocalAdapter(own, silo, WEIGHTS[silo]) for silo, own in found.locals.items()]
    start = found.starting
    inputs = MergeInputs(start.layout, spec(same), 2, sorted_locals(locals_), start)
    step = stepped(inputs).step
    assert step is not None
    return step


RULES: tuple[MergeRule, ...] = ("fed_sb", "shared_a", "sketch")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gone", [(), ("silo-03",)], ids=["all", "one dropped out"])
def test_the_step_is_that_of_the_adapters_themselves(
    tmp_path: Path, rule: MergeRule, gone: tuple[str, ...]
) -> None:
    found = played(tmp_path, rule, gone=gone)
    wanted = seen_step(rule, found)
    assert wanted > 1.1
    # The mean of squares is off by less than a quantum of its own range for each silo.
    quantum = float(CLIP * CLIP) / POINT.magnitude * 5 / 2
    assert found.step == pytest.approx(wanted, abs=100 * quantum + 2e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_change_that_is_shortened_has_a_shorter_norm_too(tmp_path: Path, rule: MergeRule) -> None:
    """All cut to one length: their mean square is its square, whatever they were."""
    far, near = tmp_path / "far", tmp_path / "near"
    far.mkdir()
    near.mkdir()
    step = played(far, rule, clip=Decimal("0.01")).step
    other = played(near, rule, clip=Decimal("0.02")).step
    # The step is of directions alone, so the length to which all are cut does not matter.
    assert step == pytest.approx(other, rel=0.02)
    assert step > 1.1
