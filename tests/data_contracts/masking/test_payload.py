"""What is in a payload, by layout and by what is trained, and what may not be masked."""

from dataclasses import replace
from decimal import Decimal
from itertools import product
from typing import get_args

import numpy as np
import pytest

from data_contracts.adapters.adapter_format import expected_shapes
from data_contracts.adapters.core_bases import UnmovedCores, WithBases
from data_contracts.adapters.starting_adapter import InitialAdapter, tensors_of
from data_contracts.errors import FederationOperatorError, SiloOperatorError
from data_contracts.masking.extra_numbers import ExtraNumber, extra_values
from data_contracts.masking.fixed_point import FixedPoint
from data_contracts.masking.pads import MOST_ENTRIES, PIECE_ENTRIES
from data_contracts.masking.payload import Change, CoreChange, Payload
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.training_recipe import TrainedFactors
from tests.data_contracts.whole_samples import LAYOUT, START, InMemory, Tensors, moved

FACTORS = [factors for factors in get_args(TrainedFactors) if factors != "core"]
POINT = FixedPoint(4, Decimal("0.5"))
LONG = AdapterLayout(
    rank=8,
    alpha=16,
    seed=1,
    targets=(
        AdapterTarget(module="long.up", in_features=50_000, out_features=30_001),
        AdapterTarget(module="short.down", in_features=3, out_features=5),
    ),
)


def pieces_of(change: Change, kept: float = 1.0) -> np.ndarray:
    pieces = list(change.pieces(POINT, kept))
    assert [first for first, _ in pieces] == list(
        range(0, PIECE_ENTRIES * len(pieces), PIECE_ENTRIES)
    )
    assert all(len(piece) == PIECE_ENTRIES for _, piece in pieces[:-1])
    return np.concatenate([piece for _, piece in pieces])


def local_of(layout: AdapterLayout, trained: TrainedFactors) -> Tensors:
    """Steps of every tensor that this training moves."""
    all_moved, start = moved(layout=layout), tensors_of(InitialAdapter(layout))
    frozen = {"a": "lora_B", "b": "lora_A"}.get(trained, "no such name")
    return {n: start[n] if frozen in n else tensor for n, tensor in all_moved.items()}


@pytest.mark.parametrize(
    ("layout", "trained"),
    # Where A alone is sent, both factors are trained; where cores are, they are sent alone.
    [
        *product((LAYOUT, LONG), FACTORS),
        (LAYOUT.a_alone, "both"),
        *product((LAYOUT.cores, LONG.cores), ["core"]),
    ],
)
def test_a_payload_is_what_moved_in_the_order_of_the_layout(
    layout: AdapterLayout, trained: TrainedFactors
) -> None:
    local, start = local_of(layout, trained), InitialAdapter(layout)
    starting = tensors_of(start)
    frozen = {"a": "lora_B", "b": "lora_A"}.get(trained)
    names = [n for n in expected_shapes(layout) if frozen is None or frozen not in n]
    expected = np.concatenate([(local[n].astype(float) - starting[n]).ravel() for n in names])
    payload = Payload(layout, trained)
    change = Change(payload, InMemory(layout, local), start, {})
    assert payload.entries - 1 == payload.tensor_entries == len(expected)
    # The last entry is no difference; what it is, the mask says.
    assert np.array_equal(pieces_of(change), [*expected, 0])
    assert np.array_equal(pieces_of(change, 0.25), [*expected * 0.25, 0])
    assert change.norm() == pytest.approx(np.linalg.norm(expected), rel=1e-12)


def test_extra_numbers_are_at_the_end_and_come_back_in_their_own_range() -> None:
    extras = (ExtraNumber("squared", Decimal(10)), ExtraNumber("steps", Decimal(1000)))
    payload = Payload(LAYOUT, "both", extras)
    change = Change(payload, InMemory(LAYOUT, moved()), START, {"steps": 250.0, "squared": 9.0})
    values = pieces_of(change, 0.5)
    assert len(values) == payload.entries == payload.tensor_entries + 3
    # In the range of the others (0.5), and not multiplied with what the norm left.
    assert values[-3:-1] == pytest.approx([0.45, 0.125])
    assert extra_values(extras, POINT, values[-3:]) == pytest.approx(
        {"squared": 9.0, "steps": 250.0}
    )
    with pytest.raises(ValueError, match="a value for each extra number"):
        pieces_of(replace(change, extras={"steps": 1.0}))


@pytest.mark.parametrize("kept", [1.0, 0.5, 1 / 3])
def test_a_square_shrinks_with_the_change_and_stays_in_its_range(kept: float) -> None:
    payload = Payload(LAYOUT, "both", (ExtraNumber("squared", Decimal(7), degree=2),))
    change = Change(payload, InMemory(LAYOUT, moved()), START, {"squared": 7 / kept**2})
    value = pieces_of(change, kept)[-2]
    assert value <= float(POINT.largest)
    assert value == pytest.approx(float(POINT.largest), rel=1e-12)
    half = replace(change, extras={"squared": 3.5})
    assert pieces_of(half, kept)[-2] == pytest.approx(0.25 * kept**2)


def test_a_change_of_cores_is_as_long_as_the_products_that_it_moves() -> None:
    start = InMemory(LAYOUT, moved(50))
    unmoved = UnmovedCores(start)
    cores = InMemory(LAYOUT.cores, moved(3, layout=LAYOUT.cores))
    change = CoreChange(Payload(LAYOUT.cores, "core"), cores, unmoved, {}, start)
    local, wanted = WithBases(start, cores), 0.0
    for target in LAYOUT.targets:
        (a, b), (begun_a, begun_b) = local.module(target), start.module(target)
        moved_by = b.astype(float) @ a - begun_b.astype(float) @ begun_a
        wanted += float(LAYOUT.scaling_of(target) * np.linalg.norm(moved_by)) ** 2
    assert change.norm() == pytest.approx(np.sqrt(wanted), rel=1e-5)
    plain = Change(change.payload, cores, unmoved, {})
    assert plain.norm() != pytest.approx(change.norm(), rel=0.01)
    assert np.array_equal(pieces_of(change), pieces_of(plain))


@pytest.mark.parametrize(
    "extras",
    [
        (ExtraNumber("one", Decimal(1)), ExtraNumber("one", Decimal(2))),
        (ExtraNumber("one", Decimal(0)),),
        (ExtraNumber("one", Decimal(-1)),),
    ],
)
def test_unclear_extra_numbers_are_refused(extras: tuple[ExtraNumber, ...]) -> None:
    with pytest.raises(FederationOperatorError, match="names of their own and a range"):
        Payload(LAYOUT, "both", extras)


def test_a_payload_for_which_a_pad_would_repeat_is_refused() -> None:
    size = 2**28
    targets = tuple(
        AdapterTarget(module=f"m{n}", in_features=size, out_features=size) for n in range(2)
    )
    layout = AdapterLayout(rank=65, alpha=1, seed=1, targets=targets)
    with pytest.raises(FederationOperatorError, match=f"at most {MOST_ENTRIES} numbers"):
        Payload(layout, "both")
    assert Payload(layout, "a").entries == 2 * 65 * size + 1


@pytest.mark.parametrize("trained", ["a", "b"])
def test_what_the_round_does_not_train_has_to_be_as_it_was(trained: TrainedFactors) -> None:
    change = Change(Payload(LAYOUT, trained), InMemory(LAYOUT, moved()), START, {})
    with pytest.raises(SiloOperatorError, match=r"model\.down in the local adapter: .* frozen"):
        pieces_of(change)
    with pytest.raises(SiloOperatorError, match="one that moved"):
        change.norm()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", list(expected_shapes(LAYOUT)))
def test_a_number_that_is_none_is_the_fault_of_the_silo_that_trained(
    name: str, value: float
) -> None:
    local = moved()
    local[name].flat[1] = value
    change = Change(Payload(LAYOUT, "both"), InMemory(LAYOUT, local), START, {})
    with pytest.raises(SiloOperatorError, match="finite values; found NaN or infinity"):
        pieces_of(change)


def test_an_extra_number_that_is_none_is_refused_too() -> None:
    payload = Payload(LAYOUT, "both", (ExtraNumber("one", Decimal(1)),))
    change = Change(payload, InMemory(LAYOUT, moved()), START, {"one": float("nan")})
    with pytest.raises(SiloOperatorError, match="extra number one"):
        pieces_of(change)
