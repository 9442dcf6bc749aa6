"""Each rule on the kernel equals the rule on dense deltas."""

import numpy as np
import pytest

from aggregator.robust.centred_clipping import Centre, centred_clipping, split_centre
from aggregator.robust.clipping import median_norm_factors
from aggregator.robust.geometric_median import geometric_median
from aggregator.robust.kernel import (
    distances_to,
    mixed,
    norms,
    shares_of_smallest,
    squared_distances,
)
from aggregator.robust.krum import multi_krum
from aggregator.robust.mixing import nearest_neighbour_shares
from tests.aggregator.robust.delta_samples import (
    Array,
    dense,
    dense_centred_clipping,
    dense_clipped,
    dense_geometric_median,
    dense_mixing,
    dense_multi_krum,
    factor_kernel,
    random_deltas,
    random_factors,
)

SEEDS = (0, 1, 2, 3)


def _off(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("seed", SEEDS)
def test_kernel_geometric_median_of_lora_factors_is_the_dense_one(seed: int) -> None:
    factors = random_factors(seed, 9)
    deltas = dense(factors)
    weights = geometric_median(factor_kernel(factors))
    assert _off(weights @ deltas, dense_geometric_median(deltas)) < 1e-8


def test_geometric_median_stays_put_when_a_minority_goes_far_away() -> None:
    deltas = random_deltas(5, 9)
    honest = deltas[:6].mean(axis=0)
    for scale in (1e2, 1e6, 1e10):
        attacked = np.concatenate([deltas[:6], scale * deltas[6:]])
        median = geometric_median(attacked @ attacked.T) @ attacked
        assert _off(median, dense_geometric_median(attacked)) < 1e-8
        assert _off(median, honest) < 1


def test_geometric_median_is_the_majority_point() -> None:
    deltas = random_deltas(2, 7)
    deltas[:4] = deltas[0]
    assert _off(geometric_median(deltas @ deltas.T) @ deltas, deltas[0]) < 1e-5


@pytest.mark.parametrize("seed", SEEDS)
def test_centred_clipping_equals_the_dense_steps(seed: int) -> None:
    deltas = random_deltas(seed, 8)
    weights = centred_clipping(deltas @ deltas.T)
    expected = dense_centred_clipping(deltas, np.zeros(deltas.shape[1]))
    assert weights.centre == 0
    assert _off(weights.coefficients @ deltas, expected) < 1e-12


@pytest.mark.parametrize("seed", SEEDS)
def test_centred_clipping_starts_at_the_carried_over_delta(seed: int) -> None:
    deltas = random_deltas(seed, 8)
    before = random_deltas(seed + 100, 1)[0]
    rows = np.vstack([deltas, before])
    kernel, centre = split_centre(rows @ rows.T)
    weights = centred_clipping(kernel, centre)
    found = weights.coefficients @ deltas + weights.centre * before
    assert _off(found, dense_centred_clipping(deltas, before)) < 1e-10
    assert weights.coefficients.sum() + weights.centre == pytest.approx(1)


def test_a_huge_radius_makes_one_step_of_centred_clipping_the_mean() -> None:
    deltas = random_deltas(1, 6)
    centre = Centre(deltas @ deltas[0], float(deltas[0] @ deltas[0]))
    weights = centred_clipping(deltas @ deltas.T, centre, radius=1e9, iterations=1)
    assert weights.coefficients == pytest.approx(np.full(6, 1 / 6))
    assert weights.centre == pytest.approx(0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tolerated", [1, 2, 4])
def test_mixing_equals_the_dense_neighbour_means(seed: int, tolerated: int) -> None:
    deltas = random_deltas(seed, 10)
    kernel = deltas @ deltas.T
    shares = nearest_neighbour_shares(kernel, tolerated)
    expected = dense_mixing(deltas, tolerated)
    assert _off(shares @ deltas, expected) < 1e-12
    assert mixed(kernel, shares) == pytest.approx(expected @ expected.T)


def test_neighbours_at_one_distance_share_the_last_place() -> None:
    corners = np.eye(4)
    shares = nearest_neighbour_shares(corners @ corners.T, 1)
    assert np.diagonal(shares) == pytest.approx(np.full(4, 1 / 3))
    assert shares[0, 1:] == pytest.approx(np.full(3, 2 / 9))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("tolerated", "kept"), [(1, None), (2, 3), (3, 1)])
def test_multi_krum_equals_the_dense_choice(seed: int, tolerated: int, kept: int | None) -> None:
    deltas = random_deltas(seed, 10)
    weights = multi_krum(deltas @ deltas.T, tolerated, kept)
    expected = dense_multi_krum(deltas, tolerated, kept or 10 - tolerated - 2)
    assert _off(weights @ deltas, expected) < 1e-12


def test_clipping_cuts_to_the_median_norm_and_leaves_the_rest() -> None:
    deltas = random_deltas(3, 7) * np.arange(1, 8)[:, None]
    factors = median_norm_factors(norms(deltas @ deltas.T))
    assert _off(factors[:, None] * deltas, dense_clipped(deltas)) < 1e-14
    assert (factors == 1).sum() == 4


def test_clipping_of_zero_deltas() -> None:
    assert median_norm_factors(np.zeros(3)).tolist() == [1, 1, 1]
    assert median_norm_factors(np.array([0.0, 0.0, 5.0])).tolist() == [1, 1, 0]


def test_distances_are_those_of_the_dense_deltas() -> None:
    deltas = random_deltas(4, 5)
    coefficients = np.array([0.1, 0.2, 0.0, 0.3, 0.1])
    result = coefficients @ deltas
    kernel = deltas @ deltas.T
    gaps = deltas[:, None] - deltas[None, :]
    assert squared_distances(kernel) == pytest.approx((gaps**2).sum(axis=2))
    assert distances_to(kernel, coefficients) == pytest.approx(
        np.linalg.norm(deltas - result, axis=1)
    )


def test_smallest_values_take_whole_places_and_ties_share() -> None:
    values = np.array([3.0, 1.0, 2.0, 2.0, 9.0])
    assert shares_of_smallest(values, 1, 0.0).tolist() == [0, 1, 0, 0, 0]
    assert shares_of_smallest(values, 2, 0.0).tolist() == [0, 1, 0.5, 0.5, 0]
    assert shares_of_smallest(values, 5, 0.0).tolist() == [1, 1, 1, 1, 1]
