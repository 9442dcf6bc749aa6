"""Bases and cores: where they come from, and what the change of a core is as a pair."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from data_contracts.adapters.adapter_format import open_adapter
from data_contracts.adapters.core_bases import UnmovedCores, WithBases, bases_of, core_name
from data_contracts.adapters.starting_adapter import Float32Array, InitialAdapter, tensors_of
from data_contracts.adapters.submission_gate import check_submission
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from tests.data_contracts.record_samples import PLAN

RANK = 4
LAYOUT = AdapterLayout(
    rank=RANK,
    alpha=8,
    seed=3,
    targets=(
        AdapterTarget(module="m.q", in_features=30, out_features=50),
        AdapterTarget(module="m.k", in_features=17, out_features=9),
        AdapterTarget(
            module="head.weight", in_features=30, out_features=3, whole="matrix", initial="normal"
        ),
    ),
)
PAIRS = LAYOUT.pairs
RECIPE = PLAN.recipe.model_copy(update={"trained_factors": "core"})
SIZES = np.array([1e-6, 0.3, 5, 2000], dtype=np.float32)
"""Of the ranks of an adapter, as far apart as they ever are."""


@dataclass(frozen=True)
class Drawn:
    """Factors of `layout` drawn from a seed, whose rows and columns differ in size."""

    layout: AdapterLayout
    seed: int

    def module(self, target: AdapterTarget, /) -> tuple[Float32Array, Float32Array]:
        rng = np.random.default_rng([self.seed, len(target.module), target.in_features])
        if target.whole is not None:
            size = (target.out_features, target.in_features)
            return np.eye(target.in_features, dtype="f4"), rng.standard_normal(size, dtype="f4")
        a = rng.standard_normal((RANK, target.in_features), dtype="f4") / SIZES[:, None]
        return a, rng.standard_normal((target.out_features, RANK), dtype="f4") * SIZES


START = Drawn(LAYOUT, 1)


def lengths(factor: Float32Array, axis: int) -> Float32Array:
    return np.asarray(np.linalg.norm(factor, axis=axis))


@pytest.mark.parametrize("start", [InitialAdapter(LAYOUT), START], ids=["seed", "trained"])
def test_rows_and_columns_of_bases_have_about_one_length(start: Drawn) -> None:
    for target in PAIRS:
        bases = bases_of(start, target)
        column = (target.out_features / RANK) ** 0.5
        for found, wanted in ((lengths(bases.a, 1), 3**-0.5), (lengths(bases.b, 0), column)):
            assert (found < 1.5 * wanted).all() and (found > wanted / 1.5).all()


def test_training_begins_with_the_starting_adapter_to_the_bit() -> None:
    """Lengths are changed by powers of two alone, so sums of products are the same sums."""
    for target in PAIRS:
        a, b = START.module(target)
        bases = bases_of(START, target)
        core = np.diag(bases.core)
        assert np.array_equal(np.diag(core), bases.core)
        assert np.array_equal(np.frexp(core)[0], np.full(RANK, np.float32(0.5)))
        assert np.array_equal((bases.b * core) * np.ldexp(np.float32(1), bases.row_powers), b)
        assert np.array_equal(bases.a, a * np.ldexp(np.float32(1), bases.row_powers)[:, None])


def test_of_an_adapter_that_nobody_trained_the_bases_are_the_seed_s() -> None:
    target = PAIRS[0]
    first, again = (bases_of(InitialAdapter(LAYOUT), target) for _ in range(2))
    assert np.array_equal(first.b, again.b)
    assert set(np.unique(np.abs(first.b))) == {np.float32(RANK**-0.5)}
    assert not first.core.any()
    other = InitialAdapter(LAYOUT.model_copy(update={"seed": 4}))
    assert not np.array_equal(bases_of(other, target).b, first.b)


def test_a_rank_that_the_start_does_not_use_can_be_trained() -> None:
    a, b = START.module(PAIRS[0])
    b[:, 2] = 0

    class Idle:
        layout = LAYOUT

        def module(self, _: AdapterTarget, /) -> tuple[Float32Array, Float32Array]:
            return a, b

    bases = bases_of(Idle(), PAIRS[0])
    assert bases.core[2, 2] == 0
    assert lengths(bases.b, 0)[2] == pytest.approx((50 / RANK) ** 0.5)
    drawn = bases_of(InitialAdapter(LAYOUT), PAIRS[0]).b
    assert np.array_equal(bases.b[:, 2], drawn[:, 2])
    assert np.array_equal(bases.pair_of(np.zeros((RANK, RANK), "f4")), b)


def test_the_change_of_a_core_as_a_pair_is_the_product_with_that_core() -> None:
    cores = Drawn(LAYOUT.cores, 7)
    pairs = WithBases(START, cores)
    assert pairs.layout == LAYOUT
    for target in PAIRS:
        bases, (a, b) = bases_of(START, target), pairs.module(target)
        change = cores.module(target.core(RANK))[1]
        core = bases.core.astype(float) + change
        expected = bases.b.astype(float) @ core @ bases.a.astype(float)
        assert np.array_equal(a, START.module(target)[0]), "A is the start's own"
        np.testing.assert_allclose(
            b.astype(float) @ a.astype(float), expected, atol=2e-6 * np.abs(expected).max()
        )
    head = LAYOUT.wholes[0]
    assert np.array_equal(pairs.module(head)[1], cores.module(head)[1])


def test_cores_that_did_not_change_are_the_start_to_the_bit() -> None:
    unmoved = UnmovedCores(START)
    assert unmoved.layout == LAYOUT.cores
    assert set(tensors_of(unmoved)) == {*map(core_name, PAIRS), "base_model.model.head.weight"}
    for target in LAYOUT.targets:
        for found, start in zip(
            WithBases(START, unmoved).module(target), START.module(target), strict=True
        ):
            assert np.array_equal(found, start)


def test_a_layout_of_cores_has_a_square_for_each_pair() -> None:
    cores = LAYOUT.cores
    assert [(t.in_features, t.out_features) for t in cores.targets[:2]] == [(RANK, RANK)] * 2
    assert cores.targets[2] == LAYOUT.targets[2]
    assert AdapterLayout.model_validate(cores.model_dump()) == cores


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"module": "m.q.other"}, "what is a core has the name of one"),
        ({"initial": "zeros"}, "what is a core has the name of one"),
        ({"out_features": RANK + 1}, "a square matrix"),
        ({"whole": "vector", "in_features": 1, "out_features": 1}, "a square matrix"),
    ],
)
def test_what_is_no_core_is_refused(changes: dict[str, object], said: str) -> None:
    fields = PAIRS[0].core(RANK).model_dump() | changes
    with pytest.raises(ValueError, match=said):
        AdapterTarget.model_validate(fields)


@pytest.mark.parametrize("others", [(PAIRS[1],), (PAIRS[1].a_alone(RANK),), (PAIRS[1].core(2),)])
def test_cores_go_without_pairs_and_are_of_the_rank(others: tuple[AdapterTarget, ...]) -> None:
    targets = tuple(target.model_dump() for target in (PAIRS[0].core(RANK), *others))
    with pytest.raises(ValueError, match="go without pairs"):
        AdapterLayout.model_validate(LAYOUT.model_dump() | {"targets": targets})


def sent(path: Path, changes: dict[str, Float32Array]) -> WithBases:
    """A submitted file of cores, as the coordinator opens it."""
    save_file(changes, path)
    return WithBases(START, open_adapter(path, LAYOUT.cores))


def test_the_gate_takes_changed_cores_and_no_others(tmp_path: Path) -> None:
    unmoved = tensors_of(UnmovedCores(START))
    name = core_name(PAIRS[1])
    one = np.zeros((RANK, RANK), "f4")
    one[1, 2] = 1e-3
    check_submission(sent(tmp_path / "good", unmoved | {name: one}), START, RECIPE)
    broken = one.copy()
    broken[0, 0] = np.inf
    for changes, rule in (
        ({}, "adapter.unchanged"),
        ({name: broken}, "adapter.not_finite"),
        ({name: one * np.float32(1e8)}, "adapter.value_too_large"),
        ({name: one * np.float32(9e6)}, "adapter.value_too_large"),
        ({name: one[:3]}, "adapter.wrong_shape"),
        ({"base_model.model.m.q.lora_B.weight": one}, "adapter.wrong_names"),
    ):
        with pytest.raises(UntrustedInputError) as refused:
            check_submission(sent(tmp_path / "bad", unmoved | changes), START, RECIPE)
        assert refused.value.rule == rule


def test_factors_that_moved_are_refused_where_cores_are_trained() -> None:
    with pytest.raises(UntrustedInputError) as refused:
        check_submission(Drawn(LAYOUT, 2), START, RECIPE)
    assert refused.value.rule == "adapter.frozen_factor"
