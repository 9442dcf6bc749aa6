"""What `make bench-steps` compares: the sums are those that the rules of its table mean."""

import numpy as np
import pytest

from benchmarks.unequal_steps import WAYS, Cell, alike, by_tokens, fednova

STEPS = np.array([20, 10, 20, 10, 7])


def test_weights_are_shares_and_fednova_is_its_equation() -> None:
    assert by_tokens(STEPS) == pytest.approx(STEPS / 67)
    assert alike(STEPS) == pytest.approx(np.full(5, 0.2))
    share = 1 / 5
    effective = sum(share * tau for tau in STEPS)
    assert fednova(STEPS) == pytest.approx([share * effective / tau for tau in STEPS])
    for weights in (by_tokens, alike, fednova):
        assert weights(np.full(4, 9)) == pytest.approx(np.full(4, 0.25)), "the same without halves"


@pytest.mark.long
def test_a_way_is_the_same_each_time_and_half_is_better_than_nothing() -> None:
    """At one seed of the silos that differ most; the table has more of them."""
    all_, left_out, half = (Cell(0.3, 1).run(way).test for way in WAYS[:3])
    assert all_ < half < left_out
    assert Cell(0.3, 1).run(WAYS[2]).test == half
