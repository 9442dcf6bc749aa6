"""How far a merge is from the true weighted sum of products, of one module and of an adapter.

Up to `EXACT_UP_TO_SILOS` silos, or where the plan asks for it, the norms are exact; their cost
grows with the square of the silos. Otherwise they are estimated with random probes, which are
further columns of the products that a merge computes anyway: for a Gaussian vector g the mean of
|E g|^2 is the squared Frobenius norm of E (Hutchinson 1990; for Gaussian probes Avron and Toledo
2011, section 5). Each probe gives one estimate for the whole adapter, and how these differ gives
the interval.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from aggregator.merge.weighted_sum import Float64Array
from data_contracts.protocol.records.adapter_layout import AdapterTarget

EXACT_UP_TO_SILOS = 8
PROBES = 8
STUDENT_T = 2.365
"""The 97.5 % quantile of Student's t with PROBES - 1 degrees of freedom."""


@dataclass(frozen=True)
class Norms:
    """Squared Frobenius norms of one module's merge.

    Of the true sum, of the merge's difference to it, and of what truncation discarded. The true sum
    is start + sum of c_i delta_i with the weights of the plan or, where it has one, of its defence,
    and with what a centre or a heavy ball carries on of the last change; under an optimizer with a
    state it is the optimizer's new product. Where they are estimated, `probed_sums` and
    `probed_errors` hold what each of the PROBES probes says; both are empty where they are exact.
    """

    true_sum: float
    error: float
    discarded: float
    probed_sums: tuple[float, ...] = ()
    probed_errors: tuple[float, ...] = ()

    @classmethod
    def exact(cls, true_sum: float, error: float, discarded: float) -> "Norms":
        """Measured on all of the matrix; what rounding makes negative is zero."""
        return cls(max(true_sum, 0.0), max(error, 0.0), max(discarded, 0.0))

    @classmethod
    def probed(cls, sums: Float64Array, errors: Float64Array, *, is_cut: bool) -> "Norms":
        """From one estimate per probe, (PROBES,) each; `is_cut` where all of the error was cut."""
        error = float(errors.mean())
        each = (tuple(sums.tolist()), tuple(errors.tolist()))
        return cls(float(sums.mean()), error, error if is_cut else 0.0, *each)


NOT_MEASURED = Norms(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Exactness:
    """Of one module or of the whole adapter, in relative terms; NaN where it was not measured.

    `discarded_energy`: share, 0 to 1, of the true sum's squared norm that truncation dropped.
    `error`: norm of (merge - true weighted sum) over the norm of that sum. `interval`: half the
    width of its 95 % interval where it is estimated, None where it is exact.
    """

    discarded_energy: float
    error: float
    interval: float | None = None


def exactness_of(norms: Sequence[Norms]) -> Exactness:
    """Of the modules with these norms together."""
    whole = sum(module.true_sum for module in norms)
    if whole == 0:
        return Exactness(0.0, 0.0)
    discarded = sum(module.discarded for module in norms)
    error = sum(module.error for module in norms)
    return Exactness(discarded / whole, math.sqrt(error / whole), _interval(norms))


def probe_vectors(seed: int, target: AdapterTarget) -> torch.Tensor:
    """(in x PROBES) standard normal, float32, of this module alone and independent of its sketch.

    `seed` must not be known to whoever supplies the adapters before they are supplied.
    """
    name = hashlib.sha256(target.module.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(name[:8], "little")])
    return torch.from_numpy(rng.standard_normal((target.in_features, PROBES), dtype=np.float32))


def column_squares(image: torch.Tensor) -> Float64Array:
    """Squared norm of every column, in float64."""
    return np.asarray(image.to(torch.float64).square().sum(dim=0))


def _interval(norms: Sequence[Norms]) -> float | None:
    """Student's t on the jackknife over the probes (Efron and Stein 1981): the error is a ratio of
    two sums that share their probes."""
    if not any(module.probed_sums for module in norms):
        return None
    sums, errors = np.zeros(PROBES), np.zeros(PROBES)
    for module in norms:
        sums += module.probed_sums or module.true_sum
        errors += module.probed_errors or module.error
    without = np.sqrt((errors.sum() - errors) / np.maximum(sums.sum() - sums, np.finfo(float).tiny))
    spread = np.square(without - without.mean()).sum() * (PROBES - 1) / PROBES
    return STUDENT_T * math.sqrt(float(spread))
