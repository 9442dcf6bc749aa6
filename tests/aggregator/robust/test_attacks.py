"""The attack simulator: each attack sends what its paper says, and the defence holds in seconds."""

import numpy as np
import pytest

from benchmarks.attacks.library import (
    ATTACKS,
    NO_ATTACK,
    REPLACEMENT,
    Attack,
    Knowledge,
    Mimic,
    alie,
    alie_z,
    gaussian,
    inner_product,
    min_max,
    scaled_replacement,
    sign_flip,
)
from benchmarks.attacks.lora_cell import CLASSES, LoraCell, factor_kernel, factors_of
from benchmarks.attacks.rules import RULES
from tests.aggregator.robust.delta_samples import random_deltas

CHANCE = 100 / CLASSES


@pytest.fixture
def known() -> Knowledge:
    deltas = random_deltas(0, 10)
    return Knowledge(deltas[:8], deltas[8:], np.random.default_rng(1))


@pytest.fixture(scope="module")
def cell() -> LoraCell:
    return LoraCell(seed=0)


def test_every_attack_sends_one_finite_delta_per_attacker(known: Knowledge) -> None:
    for attack in ATTACKS:
        sent = attack.new_sender()(known)
        assert sent.shape == known.own.shape, attack.name
        assert np.isfinite(sent).all(), attack.name


def test_sign_flip_and_scaling_act_on_the_own_delta(known: Knowledge) -> None:
    assert (sign_flip(known) == -known.own).all()
    assert (scaled_replacement(known) == 20 * known.own).all()


def test_alie_uses_the_z_of_the_paper(known: Knowledge) -> None:
    assert alie_z(25, 5) == pytest.approx(0.2533, abs=1e-4)
    moved = (known.mean - alie(known, z=1.5)[0]) / known.deviation
    assert moved == pytest.approx(np.full(30, 1.5))


def test_inner_product_points_against_the_mean(known: Knowledge) -> None:
    assert inner_product(known, 0.5)[1] == pytest.approx(-0.5 * known.mean)


def test_mimic_keeps_copying_the_silo_it_chose_first(known: Knowledge) -> None:
    sender = Mimic()
    first = sender(known)[0]
    victim = int(np.flatnonzero((known.honest == first).all(axis=1))[0])
    later = Knowledge(random_deltas(7, 8), known.own, known.rng)
    assert (sender(later) == later.honest[victim]).all()


def test_min_max_goes_exactly_as_far_as_the_honest_diameter(known: Knowledge) -> None:
    sent = min_max(known)[0]
    gaps = np.linalg.norm(known.honest[:, None] - known.honest[None, :], axis=2)
    furthest = np.linalg.norm(known.honest - sent, axis=1).max()
    assert furthest == pytest.approx(gaps.max())


def test_gaussian_noise_has_the_stated_size(known: Knowledge) -> None:
    size = np.sqrt((gaussian(known, scale=10) ** 2).mean())
    honest = np.sqrt((known.honest**2).mean())
    assert size == pytest.approx(10 * honest, rel=0.4)


def test_factor_kernel_of_the_cell_is_that_of_its_products() -> None:
    rng = np.random.default_rng(3)
    deltas = [factors_of(rng.normal(size=(8, 24))) for _ in range(4)]
    dense = np.stack([(b @ a).ravel() for b, a in deltas])
    assert factor_kernel(deltas) == pytest.approx(dense @ dense.T)


@pytest.mark.parametrize("rule", ["default", "default cc"])
def test_twentyfold_scaling_ruins_the_mean_and_costs_the_default_under_two_points(
    cell: LoraCell, rule: str
) -> None:
    scaled = Attack("scaled", lambda: scaled_replacement)
    clean = cell.run(NO_ATTACK, RULES["mean"]).accuracy
    assert clean > 75
    for attack in (scaled, REPLACEMENT):
        assert cell.run(attack, RULES["mean"]).accuracy < 2 * CHANCE
        assert cell.run(attack, RULES[rule]).accuracy > clean - 2


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_default_keeps_learning_under_every_attack(cell: LoraCell, attack: Attack) -> None:
    clean = cell.run(NO_ATTACK, RULES["mean"]).accuracy
    assert cell.run(attack, RULES["default"]).accuracy > clean - 4
