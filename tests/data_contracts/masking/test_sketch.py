"""Images of products: they add up, and a sum is rebuilt from them as far as they are wide."""

import hashlib
from decimal import Decimal

import numpy as np
import pytest
from Crypto.Cipher import AES

from data_contracts.adapters.starting_adapter import AdapterSource, InitialAdapter, narrowed
from data_contracts.errors import FederationOperatorError, SiloOperatorError
from data_contracts.masking.fixed_point import FixedPoint
from data_contracts.masking.pads import PIECE_ENTRIES
from data_contracts.masking.sketch import Images, SketchedChange, SketchPayload
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from tests.data_contracts.whole_samples import BIAS, WEIGHT, InMemory, moved

POINT = FixedPoint(3, Decimal(1))
LAYOUT = AdapterLayout(
    rank=2,
    alpha=4,
    seed=3,
    targets=(
        AdapterTarget(module="up", in_features=60, out_features=90),
        WEIGHT,
        BIAS,
        AdapterTarget(module="small", in_features=5, out_features=4),
        AdapterTarget(module="tall", in_features=4, out_features=9),
    ),
)
UP, SMALL, TALL = LAYOUT.pairs
NARROW = LAYOUT.model_copy(update={"rank": 1, "alpha": 3})


def change_of(
    payload: SketchPayload, seed: int, layout: AdapterLayout = LAYOUT
) -> tuple[SketchedChange, AdapterSource]:
    start = narrowed(InMemory(LAYOUT, moved(99, layout=LAYOUT)), layout)
    local = InMemory(layout, moved(seed, layout=layout))
    return SketchedChange(payload, local, start), local


def product(source: AdapterSource, target: AdapterTarget) -> np.ndarray:
    a, b = source.module(target)
    return source.layout.scaling_of(target) * (b.astype(np.float64) @ a)


def numbers_of(change: SketchedChange, kept: float = 1.0) -> np.ndarray:
    pieces = list(change.pieces(POINT, kept))
    assert [first for first, _ in pieces] == [n * PIECE_ENTRIES for n in range(len(pieces))]
    return np.concatenate([piece for _, piece in pieces])


def split(payload: SketchPayload, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """What is rebuilt of every target's product, or its whole tensor's change."""
    found, at = {}, 0
    for target in payload.layout.targets:
        taken = numbers[at : at + payload.entries_of(target)]
        at += len(taken)
        if target.whole is not None:
            found[target.module] = taken.reshape(target.out_features, target.in_features)
            continue
        columns, rows = payload.shapes(target)
        first, rest = np.split(taken, [columns[0] * columns[1]])
        b, a = payload.rebuilt(target, Images(first.reshape(columns), rest.reshape(rows)))
        assert b.shape == (target.out_features, payload.rank_of(target))
        found[target.module] = b @ a
    assert at == len(numbers) - 1
    assert numbers[-1] == 0
    return found


@pytest.mark.parametrize("layouts", [(LAYOUT, LAYOUT, LAYOUT), (LAYOUT, NARROW, NARROW)])
def test_a_sum_of_changes_is_rebuilt_exactly_from_the_sum_of_their_images(
    layouts: tuple[AdapterLayout, ...],
) -> None:
    payload = SketchPayload(LAYOUT, 3 * 2 + 2, seed=5)
    changes = [change_of(payload, n, layout) for n, layout in enumerate(layouts)]
    found = split(payload, np.sum([numbers_of(change) for change, _ in changes], axis=0))
    for target in LAYOUT.targets:
        wanted = sum(
            product(local, target) - product(change.starting, target) for change, local in changes
        )
        assert np.abs(found[target.module] - wanted).max() < 1e-9


def test_below_the_rank_of_the_sum_it_is_near_and_not_exact() -> None:
    """Within the bound of Tropp et al. 2017, theorem 4.3, at its mean: as far as the best of half
    the width, times the two oversamplings."""
    payload = SketchPayload(LAYOUT, 6, seed=5)
    changes = [change_of(payload, n) for n in range(8)]
    found = split(payload, np.sum([numbers_of(change) for change, _ in changes], axis=0))["up"]
    wanted = sum(product(local, UP) - product(change.starting, UP) for change, local in changes)
    values = np.linalg.svd(wanted)[1]
    error, best = np.linalg.norm(found - wanted), np.linalg.norm(values[6:])
    assert best < error < 6 * np.linalg.norm(values[3:])


def test_images_are_of_one_size_and_smaller_than_the_product_or_the_product() -> None:
    payload = SketchPayload(LAYOUT, 8, seed=5)
    assert payload.shapes(UP) == ((90, 8), (12, 60))
    assert payload.shapes(SMALL) == ((4, 0), (4, 5))
    assert (payload.rank_of(UP), payload.rank_of(SMALL), payload.rank_of(TALL)) == (8, 4, 4)
    change, _ = change_of(payload, 1)
    assert len(numbers_of(change)) == payload.entries
    assert payload.entries == 90 * 8 + 12 * 60 + 30 + 5 + 20 + 36 + 1


def test_the_signs_are_these_and_others_for_another_seed_module_or_side() -> None:
    """They must not change between releases: silos of two would add up nothing."""
    payload = SketchPayload(LAYOUT, 8, seed=5)
    b, a = np.eye(90)[:, :1], np.eye(60)[:1]
    first = payload.images(UP, b, a)
    for side, signs, size in (
        ("columns", first.columns[0], 60),
        ("rows", first.rows[:, 0], 90),
    ):
        key = hashlib.sha256(f"consortia sketch 1\n5\n{side}\nup".encode()).digest()
        stream = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(4))
        bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8))[: len(signs)]
        assert np.allclose(signs * np.sqrt(size), 2.0 * bits - 1)
    other = SketchPayload(LAYOUT, 8, seed=6).images(UP, b, a)
    assert not np.array_equal(first.columns, other.columns)


def test_the_norm_is_that_of_all_products_and_whole_tensors_and_shortens_them() -> None:
    payload = SketchPayload(LAYOUT, 8, seed=5)
    change, local = change_of(payload, 1)
    wanted = sum(
        np.linalg.norm(product(local, target) - product(change.starting, target)) ** 2
        for target in LAYOUT.targets
    )
    assert change.norm() == pytest.approx(np.sqrt(wanted), rel=1e-9)
    assert np.abs(numbers_of(change, 0.25) - 0.25 * numbers_of(change)).max() < 1e-12


@pytest.mark.parametrize("module", ["up", "classifier.weight"])
def test_what_is_not_finite_is_refused_by_name(module: str) -> None:
    payload = SketchPayload(LAYOUT, 8, seed=5)
    change, local = change_of(payload, 1)
    assert isinstance(local, InMemory)
    next(t for n, t in local.tensors.items() if module in n).flat[1] = np.nan
    with pytest.raises(SiloOperatorError, match=f"{module} in the local adapter.*NaN"):
        list(change.pieces(POINT))


def test_more_numbers_than_a_pad_has_are_refused() -> None:
    far = AdapterTarget(module="far", in_features=2**20, out_features=2**20)
    layout = LAYOUT.model_copy(update={"targets": (far,) * 2000})
    with pytest.raises(FederationOperatorError, match="at most"):
        SketchPayload(layout, 65_536, seed=1)


def test_no_change_is_rebuilt_as_none() -> None:
    payload, start = SketchPayload(LAYOUT, 8, seed=5), InitialAdapter(LAYOUT)
    found = split(payload, numbers_of(SketchedChange(payload, start, start)))
    assert not any(matrix.any() for matrix in found.values())
