"""Errors in new bases: the projection onto the tangent space, against the dense computation."""

import numpy as np
import pytest

from data_contracts.adapters.block_quantisation import SCHEMES, Scheme
from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.protocol.records.training_recipe import TrainedFactors
from silo_agent.compression.error_feedback import feed
from silo_agent.compression.rebased_error import (
    LARGEST_CHANGE,
    ErrorProduct,
    Float64Array,
    rebased_error,
)

OUT, IN, RANK = 30, 20, 3
KAIMING = 1 / np.sqrt(3)
RNG = np.random.default_rng(0)


def normal(*shape: int) -> Float32Array:
    return RNG.standard_normal(shape).astype(np.float32)


def an_error(scale: float = 1e-3) -> ErrorProduct:
    error = (normal(RANK, IN) * np.float32(scale), normal(OUT, RANK) * np.float32(scale))
    return ErrorProduct(*error, normal(RANK, IN), normal(OUT, RANK))


def dense_projection(error: Float64Array, a: Float32Array, b: Float32Array) -> Float64Array:
    """E P_A + P_B E - P_B E P_A with dense projectors."""
    p_a = np.linalg.pinv(a.astype(np.float64)) @ a
    p_b = b @ np.linalg.pinv(b.astype(np.float64))
    projection: Float64Array = error @ p_a + p_b @ error - p_b @ error @ p_a
    return projection


def test_the_pair_stands_for_true_minus_sent() -> None:
    true_a, true_b, error_a, error_b = (
        normal(RANK, IN), normal(OUT, RANK), normal(RANK, IN), normal(OUT, RANK),
    )  # fmt: skip
    sent_a, sent_b = true_a - error_a, true_b - error_b
    product = ErrorProduct(error_a, error_b, true_a, sent_b)
    expected = true_b.astype(np.float64) @ true_a - sent_b.astype(np.float64) @ sent_a
    np.testing.assert_allclose(product.left @ product.right, expected, atol=1e-5)
    found = rebased_error(product, true_a, sent_b, "both")
    assert found.squared_norm == pytest.approx(np.square(expected).sum(), rel=1e-5)
    assert product.left.shape == (OUT, 2 * RANK)


def test_it_is_the_projection_onto_the_tangent_space() -> None:
    error, a, b = an_error(), normal(RANK, IN), normal(OUT, RANK)
    found = rebased_error(error, a, b, "both")
    change = b.astype(np.float64) @ found.a + found.b.astype(np.float64) @ a
    dense = error.left @ error.right
    np.testing.assert_allclose(change, dense_projection(dense, a, b), atol=1e-8)
    assert found.lost == pytest.approx(np.square(dense - change).sum(), rel=1e-5)
    assert found.squared_norm == pytest.approx(np.square(dense).sum())
    assert np.abs(found.a.astype(np.float64) @ a.T).max() < 1e-6 * np.abs(found.a).max() * IN


@pytest.mark.parametrize("trained", ["a", "b"])
def test_where_one_factor_is_trained_the_error_goes_into_that(trained: TrainedFactors) -> None:
    error, a, b = an_error(), normal(RANK, IN), normal(OUT, RANK)
    found = rebased_error(error, a, b, trained)
    dense = error.left @ error.right
    pinv_a, pinv_b = np.linalg.pinv(a), np.linalg.pinv(b)
    kept, zero = (found.b, found.a) if trained == "b" else (found.a, found.b)
    np.testing.assert_allclose(
        kept, dense @ pinv_a if trained == "b" else pinv_b @ dense, atol=1e-6
    )
    assert not zero.any()
    change = b.astype(np.float64) @ found.a + found.b.astype(np.float64) @ a
    assert found.lost == pytest.approx(np.square(dense - change).sum(), rel=1e-4)


def test_the_same_factors_in_another_basis_lose_almost_nothing() -> None:
    """A change of basis alone: what is lost is second order in the error."""
    true_a, sent_b = normal(RANK, IN), normal(OUT, RANK)
    error = (normal(RANK, IN) * np.float32(1e-3), normal(OUT, RANK) * np.float32(1e-3))
    product = ErrorProduct(*error, true_a, sent_b)
    u, s, vh = np.linalg.svd(sent_b.astype(np.float64) @ true_a)
    a = (vh[:RANK] * KAIMING).astype(np.float32)
    b = (u[:, :RANK] * (s[:RANK] / KAIMING)).astype(np.float32)
    found = rebased_error(product, a, b, "both")
    assert np.sqrt(found.lost / found.squared_norm) < 1e-3


def test_where_b_is_zero_only_the_part_in_the_rows_of_a_is_kept() -> None:
    error, a = an_error(), normal(RANK, IN)
    found = rebased_error(error, a, np.zeros((OUT, RANK), dtype=np.float32), "both")
    dense = error.left @ error.right
    assert not found.a.any()
    np.testing.assert_allclose(found.b @ a, dense @ np.linalg.pinv(a) @ a, atol=1e-6)
    assert 0 < found.lost < found.squared_norm


def test_rank_deficient_factors_of_the_start() -> None:
    """A row of A is zero where `in` is less than the rank, a column of B where the sum is thin."""
    error, a, b = an_error(), normal(RANK, IN), normal(OUT, RANK)
    a[-1], b[:, -1] = 0, 0
    found = rebased_error(error, a, b, "both")
    dense = error.left @ error.right
    change = b.astype(np.float64) @ found.a + found.b.astype(np.float64) @ a
    np.testing.assert_allclose(change, dense_projection(dense, a, b), atol=1e-7)


def test_a_weak_direction_of_b_cannot_ask_too_much_of_a() -> None:
    error, a, b = an_error(0.1), normal(RANK, IN), normal(OUT, RANK)
    b[:, 0] *= np.float32(5e-3)
    found = rebased_error(error, a, b, "both")
    limit = LARGEST_CHANGE * np.sqrt(np.square(a).sum() / RANK) * np.sqrt(RANK)
    assert np.linalg.norm(found.a) <= limit * 1.000001
    change = b.astype(np.float64) @ found.a + found.b.astype(np.float64) @ a
    assert found.lost == pytest.approx(np.square(error.left @ error.right - change).sum(), rel=1e-5)


def trained_from(
    a: Float32Array, b: Float32Array, target: Float64Array
) -> tuple[Float32Array, Float32Array]:
    """Five steps of gradient descent on |B A - target|^2 / 2."""
    for _ in range(5):
        gap = (b @ a - target).astype(np.float32)
        step_a, step_b = b.T @ gap, gap @ a.T
        a, b = (a - 0.3 * step_a).astype(np.float32), (b - 0.3 * step_b).astype(np.float32)
    return a, b


def time_mean(scheme: Scheme | None, with_feedback: bool) -> Float64Array:
    """Mean of the global product over the last 40 of 80 rounds of stack and truncate."""
    rng = np.random.default_rng(1)
    common = rng.standard_normal((OUT, RANK)) @ rng.standard_normal((RANK, IN))
    common /= np.linalg.norm(common, 2)
    targets = [common + 0.015 * rng.standard_normal((OUT, IN)) for _ in range(3)]
    a = (rng.standard_normal((RANK, IN)) / np.sqrt(IN)).astype(np.float32)
    b = np.zeros((OUT, RANK), dtype=np.float32)
    carried: list[ErrorProduct | None] = [None] * len(targets)
    mean = np.zeros((OUT, IN))
    for round_number in range(80):
        merged = np.zeros((OUT, IN))
        for silo, target in enumerate(targets):
            local_a, local_b = trained_from(a, b, target)
            before = carried[silo]
            error = rebased_error(before, a, b, "both") if before else None
            if scheme:
                fed_a = feed(local_a - a, error.a if error else None, scheme)
                fed_b = feed(local_b - b, error.b if error else None, scheme)
                local_a, local_b = a + fed_a.sent, b + fed_b.sent
                if with_feedback:
                    errors = (fed_a.error, fed_b.error)
                    true_a = local_a + fed_a.error
                    carried[silo] = ErrorProduct(*errors, true_a, local_b)
            merged += local_b.astype(np.float64) @ local_a / len(targets)
        u, s, vh = np.linalg.svd(merged, full_matrices=False)
        a = (vh[:RANK] * KAIMING).astype(np.float32)
        b = (u[:, :RANK] * (s[:RANK] / KAIMING)).astype(np.float32)
        mean += (b.astype(np.float64) @ a / 40) * (round_number >= 40)
    return mean


def test_with_stack_and_truncate_feedback_removes_the_bias_of_int4() -> None:
    whole = time_mean(None, with_feedback=False)
    plain, fed = (
        float(np.linalg.norm(time_mean(SCHEMES["int4"], with_feedback) - whole))
        for with_feedback in (False, True)
    )
    assert plain > 1e-3 * np.linalg.norm(whole)
    assert fed < plain / 5
