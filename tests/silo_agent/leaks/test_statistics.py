"""The statistics of a leak check, against SciPy, a pair-by-pair count, and how often they err."""

import math

import numpy as np
import pytest
from scipy import stats

from silo_agent.leaks.statistics import (
    Z_95,
    auc,
    chance_of_as_many,
    chance_of_mean_exposure,
    exposures,
)


def by_pairs(members: list[float], others: list[float]) -> float:
    wins = sum((m > o) + (m == o) / 2 for m in members for o in others)
    return wins / (len(members) * len(others))


@pytest.mark.parametrize("shift", [0.0, 0.4, 1.0, 3.0])
def test_the_area_is_the_share_of_pairs_in_which_a_member_scores_higher(shift: float) -> None:
    rng = np.random.default_rng(1)
    members, others = (rng.normal(size=60) + shift).round(1), rng.normal(size=45).round(1)
    found = auc(members.tolist(), others.tolist())
    assert found.value == pytest.approx(by_pairs(members.tolist(), others.tolist()))
    u = stats.mannwhitneyu(members, others).statistic
    assert found.value == pytest.approx(u / (60 * 45))
    assert found.low <= found.value <= found.high


def test_an_interval_of_95_percent_holds_the_true_area_about_as_often() -> None:
    rng, truth = np.random.default_rng(2), stats.norm.cdf(0.7 / math.sqrt(2))
    held = 0
    for _ in range(1000):
        found = auc((rng.normal(size=200) + 0.7).tolist(), rng.normal(size=200).tolist())
        held += found.low <= truth <= found.high
    assert 0.93 <= held / 1000 <= 0.985


def test_a_handful_that_happens_to_be_told_apart_is_no_certainty() -> None:
    found = auc([3.0, 4.0, 5.0], [0.0, 1.0, 2.0])
    assert found.value == 1.0
    assert found.low == pytest.approx(1 - Z_95 * math.sqrt(7 / 108))


@pytest.mark.parametrize(("members", "others"), [([], [1.0, 2.0]), ([1.0, 2.0], [1.0])])
def test_fewer_than_two_on_a_side_give_no_area(members: list[float], others: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more"):
        auc(members, others)


@pytest.mark.parametrize(
    ("found", "of", "others_found", "others"),
    [(0, 200, 0, 200), (5, 200, 0, 200), (3, 210, 3, 190), (60, 400, 10, 300), (7, 7, 0, 3)],
)
def test_the_chance_of_as_many_is_that_of_fishers_exact_test(
    found: int, of: int, others_found: int, others: int
) -> None:
    table = [[found, of - found], [others_found, others - others_found]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    assert chance_of_as_many(found, of, others_found, others) == pytest.approx(expected)


@pytest.mark.parametrize(("of", "others"), [(0, 0), (0, 5), (5, 0)])
def test_nothing_on_a_side_is_no_surprise(of: int, others: int) -> None:
    assert chance_of_as_many(0, of, 0, others) == 1.0


def test_the_exposure_of_a_canary_is_how_far_its_rank_is_from_the_last() -> None:
    candidates = [float(loss) for loss in range(10, 25)]
    first, fourth, last = exposures([9.0, 12.5, 99.0], candidates)
    assert first == pytest.approx(math.log2(16))
    assert fourth == pytest.approx(math.log2(16) - math.log2(4))
    assert last == pytest.approx(0.0)
    assert exposures([10.0], candidates) == [pytest.approx(math.log2(16 / 1.5))], "half of a tie"
    assert exposures([1.0, 2.0], []) == [0.0, 0.0]
    assert exposures([], candidates) == []


@pytest.mark.parametrize(("mean", "count"), [(0.0, 4), (1.44, 1), (1.44, 8), (5.0, 2), (9.0, 64)])
def test_the_chance_of_a_mean_exposure_is_the_tail_of_a_gamma_distribution(
    mean: float, count: int
) -> None:
    expected = stats.gamma.sf(mean * count * math.log(2), count)
    assert chance_of_mean_exposure(mean, count) == pytest.approx(expected, rel=1e-9)


def test_canaries_that_nobody_remembers_are_seldom_thought_to_be() -> None:
    """However few candidates there are: five in a hundred draws at most, but for luck."""
    rng = np.random.default_rng(5)
    for number, candidates in ((2, 40), (8, 200), (32, 1023)):
        low = 0
        for _ in range(400):
            bits = exposures(rng.normal(size=number).tolist(), rng.normal(size=candidates).tolist())
            low += chance_of_mean_exposure(sum(bits) / number, number) < 0.05
        assert low / 400 < 0.09, (number, candidates)


def test_no_canary_is_no_surprise() -> None:
    assert chance_of_mean_exposure(0.0, 0) == 1.0
