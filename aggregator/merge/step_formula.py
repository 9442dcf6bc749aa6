"""The step of FedExP from its two numbers, the same for whoever merges and whoever audits."""

import math
from decimal import Decimal

from data_contracts.protocol.records.candidate import StepNorms
from data_contracts.protocol.records.merge_spec import FedExP

STEP_PLACES = 6
"""Digits after the point. The merge uses what the candidate tells, on every kind of CPU."""
NORM_DIGITS = 12
"""Significant ones, as a candidate tells norms; the step follows from these."""


def norms_as_told(mean_square: float, square_of_mean: float) -> StepNorms:
    """sum w_i |delta_i|^2 and |sum w_i delta_i|^2, rounded."""
    own, merged = (Decimal(f"{value:.{NORM_DIGITS}g}") for value in (mean_square, square_of_mean))
    return StepNorms(mean_square=own, square_of_mean=merged)


def step_of(norms: StepNorms, optimizer: FedExP) -> float:
    """What the merged delta is multiplied with, rounded as the candidate tells it."""
    own, merged = float(norms.mean_square), float(norms.square_of_mean)
    return step_size(own, merged, float(optimizer.max_step))


def step_size(own: float, merged: float, most: float) -> float:
    """From sum w_i |delta_i|^2 and |sum w_i delta_i|^2; deltas that cancel give `most`."""
    ratio = own / (2 * merged) if merged > 0 else (math.inf if own > 0 else 1.0)
    return round(min(max(1.0, ratio), most), STEP_PLACES)
