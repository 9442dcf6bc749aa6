"""Truncation equals dense arithmetic; the sketch comes within a percent of the best error."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.merge.blas_threads import one_blas_thread
from aggregator.merge.factor_sources import PairSource
from aggregator.merge.gram import product_kernel, squared_norm
from aggregator.merge.truncation import (
    KAIMING_ROW_NORM,
    LoraPair,
    exact_truncation,
    sketch_truncation,
    truncated,
)
from aggregator.merge.weighted_sum import Float64Array, Summand, WeightedSum
from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget

IN_FEATURES, OUT_FEATURES = 14, 11


@dataclass(frozen=True)
class Term:
    weight: float
    scaling: float
    a: Float32Array
    b: Float32Array


def term(rng: np.random.Generator, rank: int, weight: float = 0.5, scaling: float = 2.0) -> Term:
    a = rng.standard_normal((rank, IN_FEATURES)).astype(np.float32)
    b = rng.standard_normal((OUT_FEATURES, rank)).astype(np.float32)
    return Term(weight, scaling, a, b)


def sum_of(terms: list[Term]) -> WeightedSum:
    target = AdapterTarget(
        module="up", in_features=terms[0].a.shape[1], out_features=terms[0].b.shape[0]
    )
    summands = []
    for t in terms:
        layout = AdapterLayout(rank=len(t.a), alpha=1, seed=0, targets=(target,))
        coefficients = np.full(len(t.a), t.weight * t.scaling)
        summands.append(Summand(PairSource(layout, t.a, t.b), coefficients))
    return WeightedSum(target, summands)


def stack_truncate(terms: list[Term], rank: int, scaling: float) -> LoraPair:
    with one_blas_thread():
        return truncated(sum_of(terms), rank, scaling, seed=1)


def dense_sum(terms: list[Term]) -> Float64Array:
    products = [t.weight * t.scaling * (t.b.astype(float) @ t.a.astype(float)) for t in terms]
    total: Float64Array = np.sum(products, axis=0)
    return total


def product(merged: LoraPair, scaling: float) -> Float64Array:
    result: Float64Array = scaling * (merged.b.astype(float) @ merged.a.astype(float))
    return result


def relative_error(found: Float64Array, expected: Float64Array) -> float:
    return float(np.linalg.norm(found - expected)) / max(float(np.linalg.norm(expected)), 1e-12)


def assert_a_is_full_and_orthogonal(a: Float32Array) -> None:
    gram = a.astype(float) @ a.astype(float).T
    norms = np.diag(gram)
    assert norms.min() > KAIMING_ROW_NORM**2 * (1 - 1e-5)
    np.testing.assert_allclose(gram, np.diag(norms), atol=1e-6 * norms.max())


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
    assert merged.discarded_norm < 1e-5 * merged.squared_norm
    assert merged.a.shape == (rank, IN_FEATURES)
    assert merged.b.shape == (OUT_FEATURES, rank)
    assert_a_is_full_and_orthogonal(merged.a[:IN_FEATURES])


@pytest.mark.parametrize("rank", [1, 3, 6, 10])
def test_truncation_error_is_that_of_the_dense_svd(rank: int) -> None:
    rng = np.random.default_rng(3)
    terms = [term(rng, r, w) for r, w in ((4, 0.2), (4, 0.3), (8, 0.5))]
    merged = stack_truncate(terms, rank, 1.5)
    singular = np.linalg.svd(dense_sum(terms), compute_uv=False)
    optimal = float(np.sum(singular[rank:] ** 2))
    found = float(np.linalg.norm(product(merged, 1.5) - dense_sum(terms)) ** 2)
    assert found == pytest.approx(optimal, rel=1e-5)
    assert merged.discarded_norm == pytest.approx(optimal, rel=1e-5)
    assert merged.squared_norm == pytest.approx(float(np.sum(singular**2)), rel=1e-6)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_rows_are_fresh_where_the_product_is_small_and_balanced_where_it_is_large(
    size: float,
) -> None:
    rng = np.random.default_rng(13)
    merged = stack_truncate([term(rng, 4, size), term(rng, 3, size)], 5, 2.0)
    rows = np.linalg.norm(merged.a.astype(float), axis=1)
    columns = np.linalg.norm(merged.b.astype(float), axis=0)
    expected = np.maximum(KAIMING_ROW_NORM, np.sqrt(rows * columns))
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    assert (columns <= rows * (1 + 1e-5)).all()
    assert (np.diff(rows * columns) <= 0).all(), "the strongest directions come first"


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
    assert merged.discarded_norm == merged.squared_norm == 0.0
    assert_a_is_full_and_orthogonal(merged.a)


def test_opposite_terms_cancel_and_leave_a_full_a() -> None:
    one = term(np.random.default_rng(8), 4)
    other = Term(one.weight, one.scaling, one.a, -one.b)
    merged = stack_truncate([one, other], 4, 1.0)
    assert float(np.abs(product(merged, 1.0)).max()) < 1e-6
    assert_a_is_full_and_orthogonal(merged.a)


def test_a_rank_above_both_dimensions_pads_with_zero_rows() -> None:
    terms = [term(np.random.default_rng(9), 3)]
    merged = stack_truncate(terms, IN_FEATURES + 4, 1.0)
    assert merged.a.shape == (IN_FEATURES + 4, IN_FEATURES)
    assert_a_is_full_and_orthogonal(merged.a[:IN_FEATURES])
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
        stack_truncate([Term(1.0, 1.0, huge, column)], 1, 1e-3)


def decaying(rng: np.random.Generator, silos: int, rank: int, decay: float) -> list[Term]:
    """Deltas with a common part and a spectrum that falls by `decay` per rank."""
    scale = (decay ** np.arange(rank)).astype(np.float32)
    common_b = rng.standard_normal((120, rank))
    common_a = rng.standard_normal((rank, 96))
    terms = []
    for _ in range(silos):
        b = (common_b + rng.standard_normal((120, rank))) * scale
        a = common_a + rng.standard_normal((rank, 96))
        terms.append(Term(1 / silos, 2.0, a.astype(np.float32), b.astype(np.float32)))
    return terms


@pytest.mark.parametrize("decay", [1.0, 0.9, 0.5])
@pytest.mark.parametrize("silos", [9, 12, 40])
def test_the_sketch_is_within_a_percent_of_the_best_error(silos: int, decay: float) -> None:
    terms = decaying(np.random.default_rng(silos), silos, 8, decay)
    total = sum_of(terms)
    with one_blas_thread():
        found = sketch_truncation(total, squared_norm(total), 8, 1.5, seed=3)
    singular = np.linalg.svd(dense_sum(terms), compute_uv=False)
    best = float(np.linalg.norm(singular[8:]))
    error = float(np.linalg.norm(product(found, 1.5) - dense_sum(terms)))
    assert best <= error * (1 + 1e-6)
    assert error <= 1.01 * best
    assert found.discarded_norm == pytest.approx(error**2, rel=1e-3)


def test_a_sum_of_several_chunks_is_that_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = decaying(np.random.default_rng(4), 12, 8, 0.8)
    whole = sum_of(terms)
    kernel, norm = product_kernel(whole), squared_norm(whole)
    x = torch.randn(96, 5, generator=torch.Generator().manual_seed(1))
    for limit in ("CHUNK_RANK", "PAIRED_CHUNK_RANK"):
        monkeypatch.setattr(f"aggregator.merge.target_view.{limit}", 20)
    parts = sum_of(terms)
    assert [len(group) for group in parts.groups] == [2] * 6
    torch.testing.assert_close(parts.times(x), whole.times(x), rtol=1e-4, atol=1e-3)
    assert squared_norm(parts) == pytest.approx(norm, rel=1e-5)
    np.testing.assert_allclose(product_kernel(parts), kernel, rtol=1e-12)


def test_the_kernel_is_that_of_dense_products() -> None:
    rng = np.random.default_rng(6)
    terms = [term(rng, rank) for rank in (2, 5, 3)]
    flat = np.stack([dense_sum([t]).ravel() for t in terms])
    np.testing.assert_allclose(product_kernel(sum_of(terms)), flat @ flat.T, rtol=1e-12)


def test_exact_truncation_takes_stacks_of_any_width() -> None:
    rng = np.random.default_rng(12)
    left, right = rng.standard_normal((OUT_FEATURES, 40)), rng.standard_normal((40, IN_FEATURES))
    pair = exact_truncation(torch.from_numpy(left), torch.from_numpy(right), OUT_FEATURES, 1.0)
    assert relative_error(product(pair, 1.0), left @ right) < 1e-6
