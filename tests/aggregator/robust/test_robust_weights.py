"""The whole defence: what it promises on any kernel, and what it says about each silo."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.robust.centred_clipping import Centre, split_centre
from aggregator.robust.robust_weights import RobustWeights, robust_weights
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.merge_spec import RobustSpec
from tests.aggregator.robust.delta_samples import (
    Array,
    dense,
    dense_centred_clipping,
    dense_clipped,
    dense_geometric_median,
    dense_mixing,
    factor_kernel,
    in_other_gauges,
    random_deltas,
    random_factors,
)

RULES = ("mean", "geometric_median", "centred_clipping", "multi_krum")
SPECS = [
    RobustSpec.model_validate({"tolerated_silos": 2, "clip": clip, "mixing": mixing, "rule": rule})
    for clip, mixing, rule in itertools.product(
        ("none", "median_norm"), ("none", "nearest_neighbours"), RULES
    )
]
DEFAULT = RobustSpec(tolerated_silos=2)
MEAN = RobustSpec(tolerated_silos=0, clip="none", mixing="none", rule="mean")


def _name(spec: RobustSpec) -> str:
    return f"{spec.clip}-{spec.mixing}-{spec.rule}"


def _weights(deltas: Array, spec: RobustSpec, **centre: Any) -> RobustWeights:
    return robust_weights(deltas @ deltas.T, np.full(len(deltas), 1 / len(deltas)), spec, **centre)


def _centre(deltas: Array, point: Array) -> Centre:
    return Centre(deltas @ point, float(point @ point))


@pytest.mark.parametrize("spec", SPECS, ids=_name)
def test_weights_do_not_depend_on_the_factors_a_silo_chose(spec: RobustSpec) -> None:
    factors = random_factors(1, 9)
    prior = np.full(9, 1 / 9)
    weights = robust_weights(factor_kernel(factors), prior, spec)
    turned = robust_weights(factor_kernel(in_other_gauges(factors, 2)), prior, spec)
    # Mixed deltas may coincide: then a distance of zero is the root of what rounding leaves of a
    # difference, which a processor's own order of summation decides.
    assert turned.coefficients == pytest.approx(weights.coefficients, abs=1e-8)
    assert turned.distances == pytest.approx(weights.distances)


@pytest.mark.parametrize("spec", SPECS, ids=_name)
def test_weights_follow_the_silos_into_another_order(spec: RobustSpec) -> None:
    deltas = random_deltas(3, 9)
    deltas[4] = deltas[5]
    deltas[7] *= 20
    order = np.random.default_rng(0).permutation(9)
    weights = _weights(deltas, spec)
    turned = _weights(deltas[order], spec)
    assert turned.coefficients == pytest.approx(weights.coefficients[order], abs=1e-11)
    assert turned.influence == pytest.approx(weights.influence[order], abs=1e-11)
    assert {order[alarm.silo] for alarm in turned.alarms} == {a.silo for a in weights.alarms}


@pytest.mark.parametrize("spec", SPECS, ids=_name)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_weights_are_finite_not_negative_and_sum_to_at_most_one(
    spec: RobustSpec, data: st.DataObject
) -> None:
    silos = data.draw(st.integers(spec.silos_needed, 12))
    scales = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1.0, 1.0, 20.0, 1e12, 1e60])
    rows = [
        data.draw(scales) * random_deltas(data.draw(st.integers(0, 4)), 1, 4)[0]
        for _ in range(silos)
    ]
    deltas = np.stack(rows)
    centre = _centre(deltas, random_deltas(9, 1, 4)[0]) if data.draw(st.booleans()) else None
    weights = _weights(deltas, spec, centre=centre)
    everything = np.append(weights.coefficients, weights.centre_coefficient)
    assert np.isfinite(everything).all()
    assert (everything >= 0).all()
    assert everything.sum() <= 1 + 1e-12
    assert weights.influence.sum() == pytest.approx(1) or not weights.influence.any()
    assert np.isfinite(weights.distances).all()


def test_default_is_clip_then_mix_then_geometric_median() -> None:
    deltas = random_deltas(4, 10)
    deltas[8:] *= -20
    found = _weights(deltas, DEFAULT).coefficients @ deltas
    expected = dense_geometric_median(dense_mixing(dense_clipped(deltas), 2))
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-8


def test_centred_clipping_after_clip_and_mixing_uses_the_centre() -> None:
    deltas = random_deltas(6, 10) * np.linspace(0.5, 2, 10)[:, None]
    before = random_deltas(7, 1)[0]
    rows = np.vstack([deltas, before])
    kernel, centre = split_centre(rows @ rows.T)
    spec = RobustSpec(tolerated_silos=2, rule="centred_clipping")
    weights = robust_weights(kernel, np.full(10, 0.1), spec, centre)
    found = weights.coefficients @ deltas + weights.centre_coefficient * before
    expected = dense_centred_clipping(dense_mixing(dense_clipped(deltas), 2), before)
    assert found == pytest.approx(expected)
    assert weights.distances == pytest.approx(np.linalg.norm(deltas - found, axis=1))


@pytest.mark.parametrize("rule", ["geometric_median", "centred_clipping", "multi_krum"])
def test_two_silos_of_ten_scaled_twentyfold_move_the_mean_but_not_the_default(rule: str) -> None:
    clean = random_deltas(8, 10)
    honest = clean[:8].mean(axis=0)
    attacked = clean.copy()
    attacked[8:] *= -20
    spec = RobustSpec.model_validate({"tolerated_silos": 2, "rule": rule})
    spread = np.linalg.norm(clean[:8] - honest, axis=1).max()
    mean = _weights(attacked, MEAN).coefficients @ attacked
    result = _weights(attacked, spec).coefficients @ attacked
    assert np.linalg.norm(mean - honest) > 3 * np.linalg.norm(honest)
    assert np.linalg.norm(result - honest) < spread


@pytest.mark.parametrize("rule", RULES)
def test_tolerating_nobody_is_the_weighted_mean_for_every_rule(rule: str) -> None:
    deltas = random_deltas(9, 6)
    prior = np.array([0.3, 0.1, 0.1, 0.2, 0.2, 0.1])
    spec = RobustSpec.model_validate({"tolerated_silos": 0, "clip": "none", "rule": rule})
    assert robust_weights(deltas @ deltas.T, prior, spec).coefficients.tolist() == prior.tolist()


def test_token_shares_count_in_a_clipped_mean_and_not_in_a_vote() -> None:
    deltas = random_deltas(10, 6)
    kernel = deltas @ deltas.T
    equal, tilted = np.full(6, 1 / 6), np.array([0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    mean = RobustSpec(tolerated_silos=1, mixing="none", rule="mean")
    vote = RobustSpec(tolerated_silos=1)
    clipped_mean = robust_weights(kernel, tilted, mean)
    assert clipped_mean.coefficients == pytest.approx(tilted * clipped_mean.clipped)
    votes = [robust_weights(kernel, prior, vote).coefficients for prior in (equal, tilted)]
    assert votes[0].tolist() == votes[1].tolist()


@pytest.mark.parametrize("spec", SPECS, ids=_name)
def test_silos_that_agree_are_all_kept(spec: RobustSpec) -> None:
    deltas = np.repeat(random_deltas(11, 1), 8, axis=0)
    weights = _weights(deltas, spec)
    assert weights.coefficients == pytest.approx(np.full(8, weights.coefficients[0]))
    assert weights.coefficients @ deltas == pytest.approx(deltas[0])
    assert weights.alarms == ()


@pytest.mark.parametrize("spec", SPECS, ids=_name)
def test_zero_deltas_give_a_zero_merge_without_a_fault(spec: RobustSpec) -> None:
    weights = _weights(np.zeros((8, 5)), spec)
    assert np.isfinite(weights.coefficients).all()
    assert weights.influence.tolist() == [0] * 8
    assert weights.alarms == ()


def test_report_names_the_silo_that_was_clipped_and_raises_alarms() -> None:
    deltas = random_deltas(12, 10)
    deltas[3] *= 20
    weights = _weights(deltas, DEFAULT)
    assert weights.clipped[3] == pytest.approx(np.median(weights.norms) / weights.norms[3])
    assert [(alarm.silo, alarm.measure) for alarm in weights.alarms] == [
        (3, "norm"),
        (3, "distance"),
    ]
    assert weights.alarms[0].value > weights.alarms[0].limit
    assert weights.influence[3] < 0.2
    assert not weights.needs_person


@pytest.mark.parametrize("silos", [3, 4])
def test_an_alarm_among_three_or_four_silos_needs_a_person(silos: int) -> None:
    spec = RobustSpec(tolerated_silos=1, mixing="none", rule="mean")
    quiet = random_deltas(13, silos, spread=0.2)
    loud = quiet.copy()
    loud[0] *= 20
    assert not _weights(quiet, spec).needs_person
    weights = _weights(loud, spec)
    assert weights.needs_person
    assert {alarm.silo for alarm in weights.alarms} == {0}
    assert weights.clipped[0] < 0.1


@pytest.mark.parametrize("spec", SPECS, ids=_name)
def test_one_silo_too_few_is_said(spec: RobustSpec) -> None:
    needed = spec.silos_needed
    assert len(_weights(random_deltas(0, needed), spec).coefficients) == needed
    with pytest.raises(FederationOperatorError, match=f"at least {needed} admitted silos; found"):
        _weights(random_deltas(0, needed - 1), spec)


def test_rules_by_coordinates_and_overflows_are_refused() -> None:
    kernel = np.eye(6)
    prior = np.full(6, 1 / 6)
    entries = RobustSpec(tolerated_silos=1, clip="none", mixing="none", rule="median")
    with pytest.raises(FederationOperatorError, match="a rule that works entry by entry"):
        robust_weights(kernel, prior, entries)
    kernel[0, 0] = np.inf
    with pytest.raises(FederationOperatorError, match="expected finite numbers; found an overflow"):
        robust_weights(kernel, prior, RobustSpec(tolerated_silos=1))


def test_dense_of_factors_is_what_the_factor_kernel_measures() -> None:
    factors = random_factors(14, 4)
    deltas = dense(factors)
    assert factor_kernel(factors) == pytest.approx(deltas @ deltas.T)
