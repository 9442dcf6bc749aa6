"""A sketch tells how alike two changes are, whatever their factors look like."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from aggregator.evidence.likeness import (
    COPY_COSINE,
    exact_cosine,
    likenesses,
    require_change,
)
from data_contracts.adapters.adapter_format import Float32Array
from data_contracts.adapters.change_sketch import Sketcher
from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, NarrowedAdapter
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

LAYOUT = AdapterLayout(
    rank=4,
    alpha=8,
    seed=3,
    targets=tuple(
        AdapterTarget(module=f"layers.{n}.{name}", in_features=i, out_features=o)
        for n in range(4)
        for name, i, o in (("q_proj", 32, 24), ("up_proj", 32, 64), ("down_proj", 64, 32))
    ),
)
Factors = tuple[Float32Array, Float32Array]
Change = Callable[[np.random.Generator, Factors, Factors], Factors]


@dataclass(frozen=True)
class Memory:
    """An adapter in memory."""

    layout: AdapterLayout
    factors: dict[str, Factors]

    def module(self, target: AdapterTarget) -> Factors:
        return self.factors[target.module]


def drawn(seed: int, scale: float = 0.3, layout: AdapterLayout = LAYOUT) -> Memory:
    """Factors of their own, as of a start that was trained for many rounds."""
    rng = np.random.default_rng(seed)
    found = {}
    for target in layout.targets:
        a = rng.standard_normal((layout.rank, target.in_features)) * scale
        b = rng.standard_normal((target.out_features, layout.rank)) * scale
        found[target.module] = (a.astype(np.float32), b.astype(np.float32))
    return Memory(layout, found)


def trained(seed: int, start: AdapterSource, step: float = 0.05) -> Memory:
    """A little away from the start, in a direction of the silo's own."""
    moves = drawn(seed, step, start.layout)
    found = {}
    for target in start.layout.targets:
        (a, b), (da, db) = start.module(target), moves.module(target)
        found[target.module] = (a + da, b + db)
    return Memory(start.layout, found)


def changed(source: Memory, start: AdapterSource, change: Change, seed: int = 9) -> Memory:
    rng = np.random.default_rng(seed)
    found = {
        t.module: change(rng, source.module(t), start.module(t)) for t in source.layout.targets
    }
    return Memory(source.layout, found)


def rotated(rng: np.random.Generator, own: Factors, start: Factors) -> Factors:
    """B Q and Q^-1 A: the same product."""
    q = rng.standard_normal((LAYOUT.rank, LAYOUT.rank)) + 3 * np.eye(LAYOUT.rank)
    return (np.linalg.inv(q) @ own[0]).astype(np.float32), (own[1] @ q).astype(np.float32)


def one_bit(rng: np.random.Generator, own: Factors, start: Factors) -> Factors:
    a = own[0].copy()
    a.view(np.uint32)[0, 0] ^= 1
    return a, own[1]


def noised(size: float) -> Change:
    """Noise on both factors, relative to how far each moved from the start."""

    def change(rng: np.random.Generator, own: Factors, start: Factors) -> Factors:
        moved = [
            values
            + np.float32(size)
            * rng.standard_normal(values.shape).astype(np.float32)
            * np.float32(np.std(values - began))
            for values, began in zip(own, start, strict=True)
        ]
        return moved[0], moved[1]

    return change


def permuted(rng: np.random.Generator, own: Factors, start: Factors) -> Factors:
    order = rng.permutation(LAYOUT.rank)
    return own[0][order], own[1][:, order]


def scaled(size: float, source: Memory, start: AdapterSource) -> Memory:
    """The change times `size`, with the start's own factors beside it and twice the rank."""
    layout = source.layout.model_copy(update={"rank": 2 * LAYOUT.rank, "alpha": 2 * LAYOUT.alpha})
    found = {}
    for target in source.layout.targets:
        (a, b), (a0, b0) = source.module(target), start.module(target)
        found[target.module] = (
            np.concatenate([a, a0]),
            np.concatenate([b * np.float32(size), b0 * np.float32(1 - size)], axis=1),
        )
    return Memory(layout, found)


STARTS: dict[str, AdapterSource] = {"first": InitialAdapter(LAYOUT), "later": drawn(77)}
COPIES: list[tuple[str, Change]] = [
    ("the same", lambda rng, own, start: own),
    ("one bit", one_bit),
    ("other factors", rotated),
    ("another order of ranks", permuted),
    ("noise", noised(0.05)),
    ("more noise", noised(0.1)),
]


def found_among(start: AdapterSource, **sources: AdapterSource) -> dict[str, str | None]:
    sketcher = Sketcher(start, seed=123)
    sketches = {silo: sketcher.sketch(source) for silo, source in sources.items()}
    found = likenesses(sketches, lambda silo: sources[silo], start)
    return {silo: likeness.like for silo, likeness in found.items()}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
@pytest.mark.parametrize(("_name", "change"), COPIES, ids=[name for name, _ in COPIES])
def test_a_copy_is_found_however_it_is_written(
    start: AdapterSource, _name: str, change: Change
) -> None:
    own, other = trained(1, start), trained(2, start)
    found = found_among(start, own=own, other=other, copy=changed(own, start, change))
    assert found == {"own": "copy", "copy": "own"}


@pytest.mark.parametrize("size", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_a_copy_is_found_at_any_scale_and_rank(start: AdapterSource, size: float) -> None:
    """A silo may submit another rank only where the plan says so; products do not know of it."""
    own = trained(1, start)
    copy = scaled(size, own, start)
    assert exact_cosine(own, copy, start_of(start, copy.layout)) == pytest.approx(1, abs=1e-5)


def start_of(start: AdapterSource, layout: AdapterLayout) -> AdapterSource:
    """The start in a wider layout, of the same product: what is added is zero."""
    found = {}
    for target in layout.targets:
        a, b = start.module(target)
        more = layout.rank - start.layout.rank
        wide_a = np.concatenate([a, np.zeros((more, a.shape[1]), np.float32)])
        wide_b = np.concatenate([b, np.zeros((b.shape[0], more), np.float32)], axis=1)
        found[target.module] = (wide_a, wide_b)
    return Memory(layout, found)


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_silos_that_go_their_own_ways_are_left_alone(start: AdapterSource) -> None:
    sources = {f"silo-{n}": trained(n, start) for n in range(6)}
    assert found_among(start, **sources) == {}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_what_silos_share_is_the_start_and_not_what_they_changed(start: AdapterSource) -> None:
    """Whole adapters are alike, because they begin alike."""
    one, other = trained(1, start, step=0.01), trained(2, start, step=0.01)
    assert abs(exact_cosine(one, other, start)) < 0.5


def test_a_multiple_of_the_start_is_no_change() -> None:
    start = STARTS["later"]
    twice = changed(
        trained(1, start), start, lambda rng, own, began: (began[0] * np.float32(2), began[1])
    )
    assert found_among(start, own=twice, other=trained(2, start)) == {"own": None}
    half = changed(
        trained(1, start), start, lambda rng, own, began: (began[0] * np.float32(0.5), began[1])
    )
    assert found_among(start, own=half, other=trained(2, start)) == {"own": None}


def test_the_start_in_other_factors_is_no_change() -> None:
    start = STARTS["later"]
    same = changed(trained(1, start), start, lambda rng, own, began: rotated(rng, began, began))
    with pytest.raises(UntrustedInputError, match="the starting product"):
        require_change(Sketcher(start, seed=5).sketch(same))
    require_change(Sketcher(start, seed=5).sketch(trained(1, start, step=1e-4)))


def test_no_product_at_all_is_no_change() -> None:
    """A of zeros under any B: from the first start, whose product is zero, it leads nowhere."""
    start = STARTS["first"]
    nothing = changed(
        trained(1, start), start, lambda rng, own, began: (np.zeros_like(own[0]), own[1])
    )
    with pytest.raises(UntrustedInputError, match="the starting product"):
        require_change(Sketcher(start, seed=5).sketch(nothing))


def test_a_narrower_silo_is_compared_in_what_it_trains() -> None:
    start = STARTS["later"]
    narrow = LAYOUT.model_copy(update={"rank": 2, "alpha": 4, "targets": LAYOUT.targets[:6]})
    own = trained(1, NarrowedAdapter(start, narrow))
    copy = Memory(narrow, dict(own.factors))
    other = trained(2, start)
    found = found_among(start, own=own, other=other, copy=copy)
    assert found == {"own": "copy", "copy": "own"}
    assert found_among(start, own=own, other=other) == {}


def test_sketches_tell_the_cosine() -> None:
    """Within a tenth at 12 modules; the exact one decides."""
    start = STARTS["later"]
    own = trained(1, start)
    for size in (0.1, 0.5, 1.0):
        other = changed(own, start, noised(size))
        exact = exact_cosine(own, other, start)
        near = []
        for seed in range(8):
            sketcher = Sketcher(start, seed)
            one, two = sketcher.sketch(own).change, sketcher.sketch(other).change
            near.append(float(one @ two / np.linalg.norm(one) / np.linalg.norm(two)))
        assert np.abs(np.array(near) - exact).max() < 0.1, size
        assert COPY_COSINE < 1


HEAD = AdapterTarget(
    module="score.weight", in_features=32, out_features=3, whole="matrix", initial="normal"
)


def with_head(local: AdapterSource, head: Float32Array) -> Memory:
    """The pairs of `local`, and a head (3 x 32)."""
    factors = {target.module: local.module(target) for target in LAYOUT.targets}
    layout = LAYOUT.model_copy(update={"targets": (*LAYOUT.targets, HEAD)})
    return Memory(layout, factors | {HEAD.module: (np.eye(32, dtype=np.float32), head)})


def test_heads_that_honest_silos_move_alike_make_no_copies_of_them() -> None:
    """The loss of a head is nearly convex: its changes are alike, and later point along itself."""
    began, grown = np.full((2, 3, 32), 1, np.float32)
    start = with_head(STARTS["later"], began)
    silos = {
        f"silo-{n}": with_head(trained(n, STARTS["later"]), 20 * grown + np.float32(n))
        for n in range(3)
    }
    assert found_among(start, **silos) == {}


def test_another_head_hides_no_copied_pairs() -> None:
    rng, began = np.random.default_rng(0), np.ones((3, 32), np.float32)
    start, own = with_head(STARTS["later"], began), trained(1, STARTS["later"])
    heads = rng.standard_normal((2, 3, 32)).astype(np.float32) * 50
    one, other = (with_head(own, head) for head in heads)
    assert found_among(start, one=one, other=other) == {"one": "other", "other": "one"}


def test_a_head_that_moved_is_a_change_beside_pairs_that_did_not() -> None:
    start = with_head(STARTS["later"], np.ones((3, 32), np.float32))
    same = changed(
        trained(1, STARTS["later"]),
        STARTS["later"],
        lambda rng, own, began: rotated(rng, began, began),
    )
    require_change(Sketcher(start, seed=5).sketch(with_head(same, np.zeros((3, 32), np.float32))))
    with pytest.raises(UntrustedInputError, match="the starting product"):
        require_change(Sketcher(start, seed=5).sketch(with_head(same, start.module(HEAD)[1])))


SHARED = LAYOUT.a_alone


def with_a(move: float, seed: int, beside: Memory | None = None) -> Memory:
    """Factors A away from the seed's, or from those of `beside`; no product is known of them."""
    rng, start = np.random.default_rng(seed), beside or InitialAdapter(SHARED)
    found = {}
    for target in SHARED.targets:
        one, a = start.module(target)
        step = rng.standard_normal(a.shape).astype(np.float32) * np.float32(move)
        found[target.module] = (one, a + step)
    return Memory(SHARED, found)


def test_copies_of_factors_a_are_found_and_silos_that_move_them_in_part_alike_are_not() -> None:
    start = InitialAdapter(SHARED)
    common = with_a(0.02, 1)
    honest = {f"silo-{n}": with_a(0.02, n, common) for n in (2, 3)}
    assert found_among(start, **honest) == {}
    assert exact_cosine(honest["silo-2"], honest["silo-3"], start) == pytest.approx(0.5, abs=0.1)
    copied = with_a(0.004, 9, honest["silo-2"])
    found = found_among(start, **honest, copier=copied)
    assert found == {"silo-2": "copier", "copier": "silo-2"}
    expected = 1 / np.sqrt(1 + 0.004**2 / (2 * 0.02**2))
    assert exact_cosine(honest["silo-2"], copied, start) == pytest.approx(expected, abs=0.005)


def test_factors_a_that_hardly_moved_are_no_change() -> None:
    sketcher = Sketcher(InitialAdapter(SHARED), seed=5)
    require_change(sketcher.sketch(with_a(1e-3, 1)))
    for same in (InitialAdapter(SHARED), with_a(1e-8, 1)):
        with pytest.raises(UntrustedInputError, match="the starting product"):
            require_change(sketcher.sketch(same))
