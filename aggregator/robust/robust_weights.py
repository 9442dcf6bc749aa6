"""The plan's defence as one weight per silo: clip, mix, choose, and say what was done.

The merged delta is sum_i coefficients_i Delta_i (+ the centre's), a weighted sum like any other, so
the exact stacked merge runs on these weights and nothing else changes.

Who votes. Clipping, mixing, geometric median, centred clipping and Krum give every silo one vote.
Their guarantees bound the number of bad silos (Allouah et al. 2023, definition 1); weighted
versions bound the bad share of the weight instead (RFA, Pillutla et al. 2022), and a silo reports
its tokens itself: with weights, f silos at the plan's cap could be a majority. The prior weights
count only where no vote is taken: for the rule `mean` without mixing and for f = 0, which tolerates
nobody, so that whatever the rule the result is the weighted mean of the (clipped) deltas.

Guaranteed: coefficients are finite, none is negative, their sum with the centre's is at most 1, and
they follow the silos when those are put in another order. Nothing here makes a small cohort immune
to an attacker that stays within the spread of the honest silos (ALIE, mimic).
"""

from dataclasses import dataclass

import numpy as np

from aggregator.robust.alarms import Alarm, alarms_of
from aggregator.robust.centred_clipping import Centre, CentredWeights, centred_clipping
from aggregator.robust.clipping import median_norm_factors
from aggregator.robust.geometric_median import geometric_median
from aggregator.robust.kernel import Float64Array, distances_to, mixed, norms, scaled
from aggregator.robust.krum import multi_krum
from aggregator.robust.mixing import nearest_neighbour_shares
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.merge_spec import RobustSpec

SILOS_FOR_A_VOTE = 5
"""With fewer, an alarm holds the candidate for a person."""


@dataclass(frozen=True)
class RobustWeights:
    """What each of n silos counts for, and why; arrays are (n,) float64 in the kernel's order.

    `coefficients`, `centre_coefficient`: the merged delta is sum_i c_i Delta_i + that of the
    carried-over centre. They need not sum to 1: clipping shrinks.
    `influence`: |c_i| |Delta_i| over the sum of those; zeros where nothing is left.
    `norms`, `distances`: of each delta, and from each delta to the merged one.
    `clipped`: what the norm was multiplied by before mixing, 1 where it was not clipped.
    `needs_person`: fewer than 5 silos and at least one alarm.
    """

    coefficients: Float64Array
    centre_coefficient: float
    influence: Float64Array
    norms: Float64Array
    clipped: Float64Array
    distances: Float64Array
    alarms: tuple[Alarm, ...]
    needs_person: bool


def robust_weights(
    kernel: Float64Array, prior: Float64Array, spec: RobustSpec, centre: Centre | None = None
) -> RobustWeights:
    """Weights for deltas with `kernel` (n x n) and token shares `prior` (n,), sum 1.

    `centre` is the previous round's merged delta, for centred clipping; None in the first round is
    the centre zero. Raises FederationOperatorError when the spec needs more silos or works by
    coordinates, and when the kernel is not finite.
    """
    _require_fit(kernel, prior, spec)
    sizes = norms(kernel)
    clipped = median_norm_factors(sizes) if spec.clip == "median_norm" else np.ones(len(kernel))
    weights = _choose(scaled(kernel, clipped), prior, spec, _among(centre, np.diag(clipped)))
    coefficients = weights.coefficients * clipped
    distances = _distances(kernel, coefficients, centre, weights.centre)
    alarms = alarms_of("norm", sizes) + alarms_of("distance", distances)
    return RobustWeights(
        coefficients=coefficients,
        centre_coefficient=weights.centre,
        influence=_influence(coefficients, sizes),
        norms=sizes,
        clipped=clipped,
        distances=distances,
        alarms=alarms,
        needs_person=len(kernel) < SILOS_FOR_A_VOTE and bool(alarms),
    )


def _choose(
    kernel: Float64Array, prior: Float64Array, spec: RobustSpec, centre: Centre | None
) -> CentredWeights:
    """Coefficients of the clipped deltas."""
    tolerated = spec.tolerated_silos
    if tolerated == 0 or (spec.rule == "mean" and spec.mixing == "none"):
        return CentredWeights(prior, 0.0)
    if spec.mixing == "none":
        return _vote(kernel, spec, centre)
    shares = nearest_neighbour_shares(kernel, tolerated)
    votes = _vote(mixed(kernel, shares), spec, _among(centre, shares))
    return CentredWeights(shares.T @ votes.coefficients, votes.centre)


def _vote(kernel: Float64Array, spec: RobustSpec, centre: Centre | None) -> CentredWeights:
    match spec.rule:
        case "centred_clipping":
            return centred_clipping(kernel, centre)
        case "geometric_median":
            return CentredWeights(geometric_median(kernel), 0.0)
        case "multi_krum":
            return CentredWeights(multi_krum(kernel, spec.tolerated_silos), 0.0)
        case _:
            return CentredWeights(np.full(len(kernel), 1 / len(kernel)), 0.0)


def _among(centre: Centre | None, shares: Float64Array) -> Centre | None:
    return centre.moved(shares) if centre else None


def _distances(
    kernel: Float64Array, coefficients: Float64Array, centre: Centre | None, share: float
) -> Float64Array:
    """From every delta to the merged one, the centre's part included."""
    if centre is None:
        return distances_to(kernel, coefficients)
    row = np.append(centre.products, centre.squared_norm)
    extended = np.block([[kernel, centre.products[:, None]], [row[None, :]]])
    return distances_to(extended, np.append(coefficients, share))[:-1]


def _influence(coefficients: Float64Array, sizes: Float64Array) -> Float64Array:
    parts = np.abs(coefficients) * sizes
    total = parts.sum()
    return parts / total if total > 0 else np.zeros_like(parts)


def _require_fit(kernel: Float64Array, prior: Float64Array, spec: RobustSpec) -> None:
    if spec.by_coordinates:
        raise FederationOperatorError(
            f"robust rule {spec.rule}",
            expected="a rule that gives each silo one weight",
            found="a rule that works entry by entry",
            action="use it with a merge rule under which a factor is shared",
        )
    if len(kernel) < spec.silos_needed:
        raise FederationOperatorError(
            f"robust rule {spec.rule}",
            expected=f"at least {spec.silos_needed} admitted silos",
            found=f"{len(kernel)}",
            action="wait for more silos, or plan rule mean with mixing none and let a person look",
        )
    if not np.isfinite(kernel).all():
        raise FederationOperatorError(
            "inner products of the deltas",
            expected="finite numbers",
            found="an overflow",
            action="look at the norms of the admitted adapters; one of them is absurdly large",
        )
    if kernel.shape != (len(prior), len(prior)):
        raise ValueError(f"kernel {kernel.shape} and {len(prior)} prior weights do not fit")
