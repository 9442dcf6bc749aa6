"""What each silo contributed: leave-one-out and exact Shapley values with intervals.

The value of a coalition is minus the held-out loss of its merge on a public set, in nats per token.
The intervals are bootstrap percentiles over the sequences of that set, the same sequences for all
coalitions (Efron 1979; for data values Ghorbani and Zou 2019). They cover the choice of the public
set and nothing else: another training run would give other adapters, and that is not in them.
Where silos measure on their own held-out records, each of them takes the place of one sequence, and
the intervals cover which silos measured.
Shapley 1953; for federated learning Wang et al. 2020, where one round is one game, as here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import factorial

import numpy as np
import numpy.typing as npt

from aggregator.contribution.coalitions import Coalition, leave_one_out_coalitions

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SequenceLosses:
    """Summed loss in nats and answer tokens of each sequence of the public set, both (S,).

    Raises ValueError unless both are finite, of the same length, and every sequence has a token.
    """

    nats: Float64Array
    tokens: Float64Array

    def __post_init__(self) -> None:
        if self.nats.ndim != 1 or self.nats.shape != self.tokens.shape or not self.nats.size:
            shapes = f"{self.nats.shape} and {self.tokens.shape}"
            raise ValueError(f"expected nats and tokens of the same sequences, found {shapes}")
        if not (np.isfinite(self.nats).all() and np.isfinite(self.tokens).all()):
            raise ValueError("expected finite losses, found NaN or infinity")
        if self.tokens.min() < 1:
            raise ValueError("expected answer tokens in every sequence, found one without")

    @property
    def mean(self) -> float:
        """Nats per token over all sequences."""
        return float(self.nats.sum() / self.tokens.sum())


@dataclass(frozen=True)
class Contribution:
    """Nats per token by which a silo lowers the loss, with the bounds of its interval."""

    silo: str
    value: float
    low: float
    high: float


def leave_one_out(losses: Mapping[Coalition, SequenceLosses]) -> list[Contribution]:
    """Loss without the silo minus loss with everybody, for every silo, in order of their names.

    Raises ValueError when a coalition is missing or was measured on other sequences.
    """
    everyone = _everyone(losses)
    order = leave_one_out_coalitions(sorted(everyone))
    missing = [coalition for coalition in order if coalition not in losses]
    if missing:
        raise ValueError(f"expected the coalition {sorted(missing[0])}, found none")
    weights = np.zeros((len(order), len(everyone)))
    for column, silo in enumerate(sorted(everyone)):
        weights[order.index(everyone), column] = -1
        weights[order.index(everyone - {silo}), column] = 1
    return _contributions(losses, order, weights, sorted(everyone))


def shapley(losses: Mapping[Coalition, SequenceLosses]) -> list[Contribution]:
    """Exact Shapley values from all 2^n coalitions; they sum to loss(nobody) - loss(everybody).

    Raises ValueError when a coalition is missing or was measured on other sequences.
    """
    everyone = _everyone(losses)
    silos, order = sorted(everyone), list(losses)
    if len(order) != 2 ** len(silos):
        raise ValueError(f"expected {2 ** len(silos)} coalitions, found {len(order)}")
    weights = np.zeros((len(order), len(silos)))
    for row, coalition in enumerate(order):
        for column, silo in enumerate(silos):
            weights[row, column] = _share(len(coalition), len(silos), silo in coalition)
    return _contributions(losses, order, weights, silos)


def _everyone(losses: Mapping[Coalition, SequenceLosses]) -> Coalition:
    """All silos of all coalitions, so that a missing grand coalition is noticed."""
    everyone = frozenset[str]().union(*losses)
    if not everyone:
        raise ValueError("expected at least one silo, found none")
    return everyone


def _share(size: int, silos: int, is_member: bool) -> float:
    """Weight of a coalition's *loss* in a silo's value: members lower it, others are without."""
    others = size - 1 if is_member else size
    share = factorial(others) * factorial(silos - others - 1) / factorial(silos)
    return -share if is_member else share


def _contributions(
    losses: Mapping[Coalition, SequenceLosses],
    order: list[Coalition],
    weights: Float64Array,
    silos: list[str],
) -> list[Contribution]:
    """Values and percentile bounds for linear combinations `weights` (coalitions x silos)."""
    nats = np.stack([losses[coalition].nats for coalition in order])
    tokens = losses[order[0]].tokens
    if any(not np.array_equal(losses[coalition].tokens, tokens) for coalition in order):
        raise ValueError("expected the same sequences for every coalition, found others")
    values = nats.sum(axis=1) / tokens.sum() @ weights
    counts = np.random.default_rng(SEED).multinomial(
        len(tokens), np.full(len(tokens), 1 / len(tokens)), RESAMPLES
    )
    resampled = (counts @ nats.T) / (counts @ tokens)[:, None] @ weights
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return [
        Contribution(silo, float(values[i]), float(low[i]), float(high[i]))
        for i, silo in enumerate(silos)
    ]
