"""Contributions keep the axioms, and the intervals the coverage, that their names promise."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.contribution.coalitions import (
    Coalition,
    all_coalitions,
    leave_one_out_coalitions,
)
from aggregator.contribution.values import (
    SequenceLosses,
    leave_one_out,
    shapley,
)
from data_contracts.errors import FederationOperatorError

NAMES = "abcdefghijk"


def game(silos: int, seed: int, sequences: int = 12) -> dict[Coalition, SequenceLosses]:
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, 20, sequences).astype(float)
    return {
        coalition: SequenceLosses(rng.random(sequences) * tokens, tokens)
        for coalition in all_coalitions(NAMES[:silos])
    }


def by_permutations(losses: dict[Coalition, SequenceLosses], silo: str) -> float:
    everyone = sorted(frozenset[str]().union(*losses))
    marginals = []
    for order in permutations(everyone):
        before = frozenset(order[: order.index(silo)])
        marginals.append(losses[before].mean - losses[before | {silo}].mean)
    return float(np.mean(marginals))


@settings(max_examples=25, deadline=None)
@given(silos=st.integers(1, 5), seed=st.integers(0, 2**32 - 1))
def test_shapley_is_the_mean_over_all_orders(silos: int, seed: int) -> None:
    losses = game(silos, seed)
    values = shapley(losses)
    for contribution in values:
        assert contribution.value == pytest.approx(by_permutations(losses, contribution.silo))
    total = losses[frozenset()].mean - losses[frozenset(NAMES[:silos])].mean
    assert sum(c.value for c in values) == pytest.approx(total)


def additive(
    worth: dict[str, float], sequences: int, noise: float, seed: int = 5
) -> dict[Coalition, SequenceLosses]:
    """Every silo lowers the loss by its worth, whoever else takes part."""
    rng = np.random.default_rng(seed)
    tokens = np.full(sequences, 10.0)
    difficulty = rng.standard_normal((len(worth), sequences)) * noise
    losses = {}
    for coalition in all_coalitions(list(worth)):
        per_token = np.full(sequences, 3.0)
        for row, (silo, value) in enumerate(worth.items()):
            if silo in coalition:
                per_token = per_token - value - difficulty[row]
        losses[coalition] = SequenceLosses(per_token * tokens, tokens)
    return losses


def test_a_silo_that_adds_nothing_is_worth_nothing_and_equals_are_worth_the_same() -> None:
    losses = additive({"a": 0.4, "b": 0.0, "c": 0.4}, sequences=6, noise=0)
    for values in (shapley(losses), leave_one_out(losses)):
        found = {c.silo: c.value for c in values}
        assert found == pytest.approx({"a": 0.4, "b": 0.0, "c": 0.4})


def test_intervals_hold_the_true_value_about_as_often_as_they_say() -> None:
    worth = {"a": 0.5, "b": 0.1, "c": 0.3}
    held = [
        contribution.low <= worth[contribution.silo] <= contribution.high
        for seed in range(40)
        for contribution in shapley(additive(worth, 150, noise=0.5, seed=seed))
    ]
    assert 0.88 <= np.mean(held) <= 1


def test_intervals_shrink_with_the_public_set() -> None:
    small, large = (shapley(additive({"a": 0.5, "b": 0.1}, size, 0.5)) for size in (25, 2500))
    for narrow, wide in zip(large, small, strict=True):
        assert wide.low <= wide.value <= wide.high
        assert (narrow.high - narrow.low) < 0.2 * (wide.high - wide.low)


def test_leave_one_out_compares_with_everybody() -> None:
    losses = game(4, seed=2)
    everyone = frozenset(NAMES[:4])
    only = {c: losses[c] for c in leave_one_out_coalitions(NAMES[:4])}
    for contribution in leave_one_out(only):
        without = losses[everyone - {contribution.silo}].mean
        assert contribution.value == pytest.approx(without - losses[everyone].mean)


def test_coalitions_come_once_and_those_of_leave_one_out_first() -> None:
    found = all_coalitions(NAMES[:6])
    assert len(found) == len(set(found)) == 64
    assert found[:7] == leave_one_out_coalitions(NAMES[:6])


def test_ten_silos_are_exact_and_eleven_are_refused() -> None:
    assert len(shapley(game(10, seed=1))) == 10
    with pytest.raises(FederationOperatorError, match="at most 10 silos"):
        all_coalitions(NAMES)


def test_a_missing_coalition_is_noticed() -> None:
    losses = game(3, seed=1)
    del losses[frozenset("ab")]
    with pytest.raises(ValueError, match="8 coalitions, found 7"):
        shapley(losses)
