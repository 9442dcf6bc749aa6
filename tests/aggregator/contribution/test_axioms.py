"""Shapley's axioms on any game, and losses that cannot be compared are refused."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.contribution.coalitions import Coalition, all_coalitions
from aggregator.contribution.values import Contribution, SequenceLosses, leave_one_out, shapley

Game = dict[Coalition, SequenceLosses]
SILOS = st.integers(2, 6)
SEEDS = st.integers(0, 2**32 - 1)


def names(silos: int) -> list[str]:
    return [f"silo-{number}" for number in range(silos)]


def game(silos: int, seed: int, kind: Callable[[Coalition], Coalition] = lambda c: c) -> Game:
    """A random game in which coalitions that `kind` maps to the same one have the same losses."""
    rng = np.random.default_rng(seed)
    tokens = np.random.default_rng(1).integers(1, 300, 9).astype(float)
    drawn: dict[Coalition, SequenceLosses] = {}
    for coalition in all_coalitions(names(silos)):
        losses = SequenceLosses(rng.gamma(2, 1, 9) * tokens, tokens)
        drawn.setdefault(kind(coalition), losses)
    return {coalition: drawn[kind(coalition)] for coalition in all_coalitions(names(silos))}


def by_silo(values: list[Contribution]) -> dict[str, tuple[float, float, float]]:
    return {found.silo: (found.value, found.low, found.high) for found in values}


@settings(max_examples=20, deadline=None)
@given(silos=SILOS, seed=SEEDS)
def test_efficiency_values_share_out_the_whole_change(silos: int, seed: int) -> None:
    losses = game(silos, seed)
    change = losses[frozenset()].mean - losses[frozenset(names(silos))].mean
    assert sum(found.value for found in shapley(losses)) == pytest.approx(change)


@settings(max_examples=20, deadline=None)
@given(silos=SILOS, seed=SEEDS)
def test_symmetry_interchangeable_silos_are_worth_the_same(silos: int, seed: int) -> None:
    def kind(coalition: Coalition) -> Coalition:
        """silo-1 alone counts as silo-0 alone."""
        return coalition if "silo-0" in coalition else renamed(coalition)

    def renamed(coalition: Coalition) -> Coalition:
        return frozenset("silo-0" if silo == "silo-1" else silo for silo in coalition)

    found = by_silo(shapley(game(silos, seed, kind)))
    assert found["silo-0"] == pytest.approx(found["silo-1"])


@settings(max_examples=20, deadline=None)
@given(silos=SILOS, seed=SEEDS)
def test_dummy_a_silo_that_changes_nothing_is_worth_nothing(silos: int, seed: int) -> None:
    losses = game(silos, seed, lambda coalition: coalition - {"silo-0"})
    assert by_silo(shapley(losses))["silo-0"] == pytest.approx((0, 0, 0), abs=1e-12)
    assert by_silo(leave_one_out(losses))["silo-0"] == pytest.approx((0, 0, 0), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(silos=SILOS, seeds=st.tuples(SEEDS, SEEDS))
def test_additivity_the_value_of_a_sum_is_the_sum_of_values(
    silos: int, seeds: tuple[int, int]
) -> None:
    one, other = (game(silos, seed) for seed in seeds)
    both = {c: SequenceLosses(one[c].nats + other[c].nats, one[c].tokens) for c in one}
    first, second, summed = (by_silo(shapley(losses)) for losses in (one, other, both))
    for silo in names(silos):
        assert summed[silo][0] == pytest.approx(first[silo][0] + second[silo][0])


@settings(max_examples=20, deadline=None)
@given(silos=SILOS, seed=SEEDS)
def test_the_order_in_which_coalitions_were_measured_does_not_show(silos: int, seed: int) -> None:
    losses = game(silos, seed)
    backwards = dict(reversed(losses.items()))
    for method in (shapley, leave_one_out):
        there, back = by_silo(method(losses)), by_silo(method(backwards))
        assert there.keys() == back.keys()
        for silo, found in there.items():
            assert back[silo] == pytest.approx(found)


def test_ten_silos_take_seconds() -> None:
    rng, tokens = np.random.default_rng(0), np.full(500, 100.0)
    losses = {c: SequenceLosses(rng.random(500), tokens) for c in all_coalitions(names(10))}
    began = time.monotonic()
    assert len(shapley(losses)) == 10
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("nats", "tokens", "message"),
    [
        ([], [], "the same sequences"),
        ([1.0, 2.0], [1.0], "the same sequences"),
        ([1.0, np.nan], [1.0, 1.0], "finite losses"),
        ([1.0, 2.0], [1.0, np.inf], "finite losses"),
        ([1.0, 0.0], [1.0, 0.0], "answer tokens in every sequence"),
    ],
)
def test_losses_that_have_no_mean_are_refused(
    nats: list[float], tokens: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceLosses(np.array(nats), np.array(tokens))


@pytest.mark.parametrize("method", [shapley, leave_one_out])
def test_other_sequences_for_one_coalition_are_refused(
    method: Callable[[Game], list[Contribution]],
) -> None:
    losses = game(2, seed=1)
    without = frozenset({"silo-0"})
    losses[without] = SequenceLosses(losses[without].nats, losses[without].tokens + 1)
    with pytest.raises(ValueError, match="the same sequences for every coalition"):
        method(losses)


def test_a_missing_grand_coalition_is_not_replaced_by_the_largest() -> None:
    losses = game(3, seed=1)
    del losses[frozenset(names(3))]
    with pytest.raises(ValueError, match=r"\['silo-0', 'silo-1', 'silo-2'\], found none"):
        leave_one_out(losses)
    with pytest.raises(ValueError, match="8 coalitions, found 7"):
        shapley(losses)
    with pytest.raises(ValueError, match="at least one silo"):
        leave_one_out({frozenset(): losses[frozenset()]})
