"""The merge equals dense arithmetic, PEFT's own combination, and the optimal truncation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.stack_truncate import (
    KAIMING_ROW_NORM,
    MergedModule,
    Term,
    stack_truncate,
)
from data_contracts.errors import FederationOperatorError

IN_FEATURES, OUT_FEATURES = 14, 11


def term(rng: np.random.Generator, rank: int, weight: float = 0.5, scaling: float = 2.0) -> Term:
    a = rng.standard_normal((rank, IN_FEATURES)).astype(np.float32)
    b = rng.standard_normal((OUT_FEATURES, rank)).astype(np.float32)
    return Term(weight, scaling, a, b)


def dense_sum(terms: list[Term]) -> np.ndarray:
    products = [t.weight * t.scaling * (t.b.astype(float) @ t.a.astype(float)) for t in terms]
    total: np.ndarray = np.sum(products, axis=0)
    return total


def product(merged: MergedModule, scaling: float) -> np.ndarray:
    result: np.ndarray = scaling * (merged.b.astype(float) @ merged.a.astype(float))
    return result


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-12)


def assert_rows_like_a_fresh_a(a: np.ndarray) -> None:
    gram = a.astype(float) @ a.astype(float).T
    np.testing.assert_allclose(gram, np.eye(len(a)) * KAIMING_ROW_NORM**2, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    alphas=st.lists(st.integers(1, 64), min_size=4, max_size=4),
    alpha=st.integers(1, 64),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_weighted_sum_when_the_rank_suffices(
    ranks: list[int], alphas: list[int], alpha: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(len(ranks)))
    terms = [term(rng, r, w, x / r) for r, w, x in zip(ranks, weights, alphas, strict=False)]
    rank = sum(ranks)
    merged = stack_truncate(terms, rank, alpha / rank)
    assert relative_error(product(merged, alpha / rank), dense_sum(terms)) < 1e-5
    assert merged.discarded_energy < 1e-12
    assert merged.a.shape == (rank, IN_FEATURES)
    assert merged.b.shape == (OUT_FEATURES, rank)
    assert_rows_like_a_fresh_a(merged.a[:IN_FEATURES])


@pytest.mark.parametrize("rank", [1, 3, 6, 10])
def test_truncation_error_is_that_of_the_dense_svd(rank: int) -> None:
    rng = np.random.default_rng(3)
    terms = [term(rng, r, w) for r, w in ((4, 0.2), (4, 0.3), (8, 0.5))]
    merged = stack_truncate(terms, rank, 1.5)
    singular = np.linalg.svd(dense_sum(terms), compute_uv=False)
    optimal = float(np.sum(singular[rank:] ** 2))
    found = float(np.linalg.norm(product(merged, 1.5) - dense_sum(terms)) ** 2)
    assert found == pytest.approx(optimal, rel=1e-5)
    share = optimal / float(np.sum(singular**2))
    assert merged.discarded_energy == pytest.approx(share, rel=1e-9)
    assert merged.squared_norm == pytest.approx(float(np.sum(singular**2)), rel=1e-9)


def test_the_product_does_not_depend_on_the_gauge_of_the_factors() -> None:
    rng = np.random.default_rng(5)
    plain = [term(rng, 4), term(rng, 2)]
    turned = []
    for t in plain:
        gauge = rng.standard_normal((len(t.a), len(t.a))) + 3 * np.eye(len(t.a))
        a, b = gauge @ t.a, t.b @ np.linalg.inv(gauge)
        turned.append(Term(t.weight, t.scaling, a.astype(np.float32), b.astype(np.float32)))
    one, other = stack_truncate(plain, 3, 2.0), stack_truncate(turned, 3, 2.0)
    assert relative_error(product(other, 2.0), product(one, 2.0)) < 1e-5


def test_a_zero_sum_gives_a_full_a_and_a_zero_product() -> None:
    rng = np.random.default_rng(7)
    empty = term(rng, 2)
    merged = stack_truncate(
        [Term(1.0, 1.0, np.zeros_like(empty.a), np.zeros_like(empty.b))], 5, 1.0
    )
    assert not merged.b.any()
    assert merged.discarded_energy == 0.0
    assert_rows_like_a_fresh_a(merged.a)


def test_opposite_terms_cancel_and_leave_a_full_a() -> None:
    one = term(np.random.default_rng(8), 4)
    other = Term(one.weight, one.scaling, one.a, -one.b)
    merged = stack_truncate([one, other], 4, 1.0)
    assert float(np.abs(product(merged, 1.0)).max()) < 1e-6
    assert_rows_like_a_fresh_a(merged.a)


def test_a_rank_above_both_dimensions_pads_with_zero_rows() -> None:
    terms = [term(np.random.default_rng(9), 3)]
    merged = stack_truncate(terms, IN_FEATURES + 4, 1.0)
    assert merged.a.shape == (IN_FEATURES + 4, IN_FEATURES)
    assert_rows_like_a_fresh_a(merged.a[:IN_FEATURES])
    assert not merged.a[IN_FEATURES:].any()
    assert relative_error(product(merged, 1.0), dense_sum(terms)) < 1e-5


def test_more_summed_ranks_than_dimensions() -> None:
    rng = np.random.default_rng(10)
    terms = [term(rng, 8, 1 / 6) for _ in range(6)]
    merged = stack_truncate(terms, 12, 1.0)
    assert relative_error(product(merged, 1.0), dense_sum(terms)) < 1e-5


def test_same_terms_give_the_same_bits_whatever_the_number_of_threads() -> None:
    rng = np.random.default_rng(11)
    terms = [term(rng, 8, 1 / 3) for _ in range(3)]
    before = torch.get_num_threads()
    first = stack_truncate(terms, 4, 1.0)
    try:
        torch.set_num_threads(2)
        second = stack_truncate(terms, 4, 1.0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert first.a.tobytes() == second.a.tobytes()
    assert first.b.tobytes() == second.b.tobytes()


def test_overflow_of_float32_is_a_fault_with_a_way_out() -> None:
    huge = np.full((1, IN_FEATURES), 3e38, dtype=np.float32)
    column = np.full((OUT_FEATURES, 1), 3e38, dtype=np.float32)
    with pytest.raises(FederationOperatorError, match="expected values that fit float32"):
        stack_truncate([Term(1.0, 1.0, huge, column)], 1, 1.0)


def test_no_terms_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one term"):
        stack_truncate([], 2, 1.0)
