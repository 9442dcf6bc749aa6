"""Tensors that are trained whole, in files, as they start, and through every check of the gate."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from data_contracts.adapters.adapter_format import (
    adapter_bytes_limit,
    check_adapter,
    expected_shapes,
    open_adapter,
)
from data_contracts.adapters.block_quantisation import SCHEMES, Scheme, quantise
from data_contracts.adapters.change_sketch import Sketcher
from data_contracts.adapters.peft_config import peft_config
from data_contracts.adapters.quantised_format import (
    QuantisedFile,
    check_quantised,
    codes_name,
    open_quantised,
    scales_name,
)
from data_contracts.adapters.remembered_start import RememberedStart
from data_contracts.adapters.starting_adapter import (
    AdapterSource,
    InitialAdapter,
    NarrowedAdapter,
    RestOfAdapter,
    tensors_of,
)
from data_contracts.adapters.submission_gate import check_submission
from data_contracts.adapters.whole_tensors import (
    BLOCK_VALUES,
    adds_something,
    identity,
    initial_whole,
)
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.training_recipe import TrainedFactors
from tests.data_contracts.record_samples import PLAN
from tests.data_contracts.whole_samples import (
    BIAS,
    BIAS_NAME,
    LAYOUT,
    NORM_NAME,
    PAIR,
    START,
    WEIGHT,
    WEIGHT_NAME,
    InMemory,
    Tensors,
    moved,
    source,
    written,
)

BOTH = pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES.keys())


def test_a_file_has_the_tensor_alone_in_its_own_shape() -> None:
    shapes = expected_shapes(LAYOUT)
    assert shapes[WEIGHT_NAME] == (5, 6)
    assert shapes[BIAS_NAME] == (5,)
    assert len(shapes) == 2 + 3
    assert shapes.keys() == tensors_of(START).keys()
    assert {name: tensor.shape for name, tensor in tensors_of(START).items()} == shapes
    assert adapter_bytes_limit(LAYOUT) > 4 * sum(int(np.prod(s)) for s in shapes.values())


def test_its_pair_is_the_identity_and_the_tensor(tmp_path: Path) -> None:
    tensors = moved(seed=3)
    file = open_adapter(written(tmp_path / "a", tensors), LAYOUT)
    for target, name in ((WEIGHT, WEIGHT_NAME), (BIAS, BIAS_NAME)):
        a, b = file.module(target)
        assert a.shape == (target.in_features, target.in_features)
        assert b.shape == (target.out_features, target.in_features)
        assert b.tobytes() == tensors[name].tobytes()
        assert np.array_equal(b @ a, b)
    written_again = tensors_of(file)
    assert all(np.array_equal(written_again[name], tensors[name]) for name in tensors)


def test_an_identity_takes_no_memory_of_its_size() -> None:
    assert np.array_equal(identity(5), np.eye(5))
    assert identity(1).tolist() == [[1]]
    huge = identity(100_000)
    assert huge[99_999, 99_999] == 1
    assert huge[99_999, 0] == huge[0, 99_999] == 0
    assert not huge.flags.writeable


DIGESTS = {
    "zeros": "aa612641cab1ab622d67bea3da594d0c6c97bdf1bc94eb4b3be98f4e73353628",
    "ones": "f27e3b257ac6e7ca6802b5ac33971bcdf7be45b4ad77ae57d09a87b74c0cc360",
    "normal": "99735ac1bcc9352b7a7c70afbf27ee3c5ab6f17bd8667549703c05f85ac5674f",
}


@pytest.mark.parametrize("initial", DIGESTS)
def test_what_a_tensor_starts_as_is_pinned_so_that_silos_of_all_machines_agree(
    initial: str,
) -> None:
    """More values than are drawn at a time, of an odd number."""
    whole = {"module": "classifier.weight", "in_features": 1, "out_features": BLOCK_VALUES + 33}
    target = AdapterTarget.model_validate(whole | {"whole": "vector", "initial": initial})
    layout = LAYOUT.model_copy(update={"targets": (PAIR, target)})
    found = initial_whole(layout, target)
    assert found.dtype == np.float32
    assert hashlib.sha256(found.tobytes()).hexdigest() == DIGESTS[initial]
    assert not adds_something(layout, target, found)
    found[-1] += np.float32(0.5)
    assert adds_something(layout, target, found)


def test_a_normal_start_has_the_deviation_of_the_models() -> None:
    target = WEIGHT.model_copy(update={"in_features": 400, "out_features": 300})
    layout = LAYOUT.model_copy(update={"targets": (PAIR, target)})
    values = initial_whole(layout, target)
    assert values.std() == pytest.approx(0.02, rel=0.01)
    assert abs(values.mean()) < 0.0003
    assert np.abs(values).max() < 0.09
    other = initial_whole(layout.model_copy(update={"seed": 8}), target)
    assert not np.array_equal(values, other)
    renamed = target.model_copy(update={"module": "score.weight"})
    assert not np.array_equal(values, initial_whole(layout, renamed))


def rule_of(path: Path, layout: AdapterLayout = LAYOUT) -> str | None:
    try:
        check_adapter(path, layout)
    except UntrustedInputError as error:
        return error.rule
    return None


REFUSED: dict[str, tuple[str, Tensors]] = {
    "missing": ("wrong_names", {n: t for n, t in moved().items() if n != WEIGHT_NAME}),
    "one too many": ("wrong_names", moved() | {"base_model.model.score.weight": np.ones(2, "<f4")}),
    "a vector as a column": ("wrong_shape", moved() | {BIAS_NAME: moved()[BIAS_NAME][:, None]}),
    "a matrix as a vector": ("wrong_shape", moved() | {WEIGHT_NAME: moved()[WEIGHT_NAME].ravel()}),
    "transposed": ("wrong_shape", moved() | {WEIGHT_NAME: moved()[WEIGHT_NAME].T}),
    "its identity too": (
        "wrong_names",
        moved() | {f"{WEIGHT_NAME.removesuffix('.weight')}.lora_A.weight": np.eye(6, dtype="<f4")},
    ),
    "half precision": ("wrong_dtype", moved() | {BIAS_NAME: moved()[BIAS_NAME].astype("<f2")}),
    "not a number": ("not_finite", moved() | {BIAS_NAME: np.full(5, np.nan, "<f4")}),
    "infinite": ("not_finite", moved() | {WEIGHT_NAME: np.full((5, 6), -np.inf, "<f4")}),
    "too large": ("value_too_large", moved() | {NORM_NAME: np.full(6, 10_001, "<f4")}),
    "all as it starts": ("zero_delta", moved(scale=0)),
    "filled by nobody": ("zero_delta", {n: np.zeros_like(t) for n, t in moved().items()}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_gate_refuses(case: str, tmp_path: Path) -> None:
    expected, tensors = REFUSED[case]
    assert rule_of(written(tmp_path / "a", tensors)) == f"adapter.{expected}"


@pytest.mark.parametrize("only", ["", "classifier.weight", "bias", "norm", "lora_B"])
def test_one_tensor_that_moved_is_enough(only: str, tmp_path: Path) -> None:
    assert rule_of(written(tmp_path / "a", moved(only=only))) is None


def test_a_head_that_is_zero_is_no_contribution_of_its_own(tmp_path: Path) -> None:
    zeroed = moved(scale=0) | {NORM_NAME: np.zeros(6, "<f4"), WEIGHT_NAME: np.zeros((5, 6), "<f4")}
    assert rule_of(written(tmp_path / "a", zeroed)) == "adapter.zero_delta"


def submitted(found: AdapterSource, starting: AdapterSource, trained: TrainedFactors) -> str | None:
    recipe = PLAN.recipe.model_copy(update={"trained_factors": trained})
    try:
        check_submission(found, starting, recipe)
    except UntrustedInputError as error:
        return error.rule
    return None


@pytest.mark.parametrize("trained", ["both", "b", "a"])
@pytest.mark.parametrize("only", ["classifier.weight", "bias", "norm"])
def test_whole_tensors_are_trained_whatever_factor_is(trained: TrainedFactors, only: str) -> None:
    start = source(seed=1)
    steps = {n: t - tensors_of(START)[n] for n, t in moved(seed=2, only=only).items()}
    local = InMemory(LAYOUT, {n: t + steps[n] for n, t in tensors_of(start).items()})
    assert submitted(local, start, trained) is None
    assert submitted(start, start, trained) == "adapter.unchanged"


def test_another_head_does_not_hide_a_frozen_factor_that_moved() -> None:
    start, local = source(seed=1), source(seed=2)
    assert submitted(local, start, "b") == "adapter.frozen_factor"


def quantised(path: Path, tensors: Tensors, start: AdapterSource, scheme: Scheme) -> Path:
    entries: Tensors = {}
    starts = tensors_of(start)
    for name, tensor in tensors.items():
        blocks = quantise(tensor - starts[name], scheme)
        codes = blocks.codes.view(np.int8) if scheme.codes_per_byte == 1 else blocks.codes
        entries |= {codes_name(name): codes, scales_name(name): blocks.scales}
    return written(path, entries)


@BOTH
@pytest.mark.parametrize("remembers", [True, False])
def test_a_quantised_difference_decodes_to_the_tensor(
    tmp_path: Path, scheme: Scheme, *, remembers: bool
) -> None:
    tensors = moved(seed=4)
    path = quantised(tmp_path / "q", tensors, START, scheme)
    starting = RememberedStart(START, 2) if remembers else START
    file = check_quantised(path, LAYOUT, scheme, starting)
    check_submission(file, starting, PLAN.recipe)
    decoded = tensors_of(file)
    for name, tensor in tensors.items():
        assert decoded[name].shape == tensor.shape
        step = np.abs(tensor - tensors_of(START)[name]).max() / scheme.levels
        assert np.abs(decoded[name] - tensor).max() <= 0.51 * step
    a, b = file.difference(WEIGHT)
    assert a.shape == (6, 6)
    assert not a.any()
    np.testing.assert_allclose(b, decoded[WEIGHT_NAME] - tensors_of(START)[WEIGHT_NAME], atol=1e-7)
    found = file.checked(BIAS)
    assert found.keeps_a
    assert not found.keeps_b
    assert found.is_within is remembers


@BOTH
def test_a_quantised_file_of_nothing_is_refused(tmp_path: Path, scheme: Scheme) -> None:
    path = quantised(tmp_path / "q", tensors_of(START), START, scheme)
    with pytest.raises(UntrustedInputError, match="zeros only"):
        check_quantised(path, LAYOUT, scheme, START)
    head = quantised(tmp_path / "h", moved(only="bias"), START, scheme)
    assert isinstance(check_quantised(head, LAYOUT, scheme, START), QuantisedFile)


@BOTH
@pytest.mark.parametrize("start", [9_999.0, 0.0])
def test_a_quantised_head_stays_within_bounds(tmp_path: Path, scheme: Scheme, start: float) -> None:
    starts = moved() | {NORM_NAME: np.full(6, start, "<f4")}
    starting = RememberedStart(InMemory(LAYOUT, starts), 2)
    steps = starts | {NORM_NAME: np.full(6, start + 50, "<f4")}
    path = quantised(tmp_path / "q", steps, starting, scheme)
    file = open_quantised(path, LAYOUT, scheme, starting)
    if start:
        with pytest.raises(UntrustedInputError, match="at most 10000"):
            check_submission(file, starting, PLAN.recipe)
    else:
        check_submission(file, starting, PLAN.recipe)


def test_a_narrower_silo_trains_every_whole_tensor_and_leaves_none_to_the_rest() -> None:
    narrow = LAYOUT.model_copy(update={"rank": 1, "alpha": 1})
    wide = source(seed=6)
    own, rest = tensors_of(NarrowedAdapter(wide, narrow)), RestOfAdapter(wide, narrow)
    for name in (WEIGHT_NAME, BIAS_NAME, NORM_NAME):
        assert np.array_equal(own[name], tensors_of(wide)[name])
    assert rest.layout.targets == (PAIR,)
    assert tensors_of(rest).keys() == expected_shapes(LAYOUT.without_wholes).keys()
    a, b = rest.module(PAIR)
    own_a, own_b = NarrowedAdapter(wide, narrow).module(PAIR)
    whole_a, whole_b = wide.module(PAIR)
    total = LAYOUT.scaling * (b @ a) + narrow.scaling * (own_b @ own_a)
    np.testing.assert_allclose(total, LAYOUT.scaling * (whole_b @ whole_a), rtol=1e-5)


def test_a_layout_without_whole_tensors_is_left_as_it_is() -> None:
    pairs = LAYOUT.without_wholes
    assert pairs.without_wholes is pairs
    assert pairs.targets == LAYOUT.pairs


def test_a_whole_tensor_cannot_be_named_as_a_factor() -> None:
    fields = BIAS.model_dump() | {"module": f"{PAIR.module}.lora_B.weight"}
    with pytest.raises(ValidationError, match="name of a factor"):
        AdapterTarget.model_validate(fields)


def test_peft_saves_the_modules_of_whole_tensors() -> None:
    model = BaseModelRef.model_validate(PLAN.base_model)
    config = peft_config(LAYOUT, model)
    assert config["modules_to_save"] == ["classifier", "norm"]
    assert config["target_modules"] == ["model.down"]
    assert peft_config(LAYOUT.without_wholes, model)["modules_to_save"] is None


@BOTH
def test_a_sketch_is_of_products_and_notes_a_head_that_moved(
    tmp_path: Path, scheme: Scheme
) -> None:
    start, pairs = source(seed=1), LAYOUT.without_wholes
    steps = {name: t - tensors_of(START)[name] for name, t in moved(seed=2).items()}

    def changed(only: str) -> InMemory:
        own = tensors_of(start)
        return InMemory(LAYOUT, {n: t + steps[n] if only in n else t for n, t in own.items()})

    sketcher = Sketcher(start, seed=5)
    assert not sketcher.sketch(start).moves_whole
    of_pairs = {n: t for n, t in changed("lora").tensors.items() if "lora" in n}
    alone = Sketcher(InMemory(pairs, tensors_of(start)), seed=5).sketch(InMemory(pairs, of_pairs))
    for only in ("lora", "classifier", "bias", "norm", ""):
        local = changed(only)
        path = quantised(tmp_path / "q", local.tensors, start, scheme)
        decoded = open_quantised(path, LAYOUT, scheme, start)
        for each in (local, decoded):
            found = sketcher.sketch(each)
            assert found.moves_whole == (only != "lora")
            assert bool(found.relative_size) == (only in ("lora", ""))
        if only in ("lora", ""):
            assert np.array_equal(sketcher.sketch(local).change, alone.change)
            assert np.array_equal(sketcher.sketch(local).start, alone.start)


def test_a_start_is_remembered_with_its_head() -> None:
    start = RememberedStart(source(seed=1), 1)
    assert start.largest(WEIGHT) == (1.0, float(np.abs(source(seed=1).module(WEIGHT)[1]).max()))
    assert np.array_equal(start.module(WEIGHT)[1], source(seed=1).module(WEIGHT)[1])
    assert not start.module(WEIGHT)[1].flags.writeable


def test_a_silo_and_the_coordinator_draw_the_same_start() -> None:
    reordered = LAYOUT.model_copy(update={"rank": 9, "targets": LAYOUT.targets[::-1]})
    for target in LAYOUT.wholes:
        one, other = (InitialAdapter(each).module(target)[1] for each in (LAYOUT, reordered))
        assert one.tobytes() == other.tobytes()
