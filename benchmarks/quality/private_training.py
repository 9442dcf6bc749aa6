"""Differentially private training of a silo in the bake-off: the product's clipped sums, and noise.

Every sequence is a record. Each step draws each with the same probability, so that on average
`private_sequences` are drawn, cuts its gradient to one norm over all trained tensors, and adds
noise once (Abadi et al. 2016). How much follows from epsilon over all rounds, by the product's
accountant. Draws and noise come from numbered seeds, so that figures can be had again: a silo
takes them from its own secret.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from benchmarks.quality.base_model import Tokens, next_token_loss
from benchmarks.quality.settings import Settings
from data_contracts.privacy.accountant import NoGuaranteeError, PrivateSteps, epsilon_of
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.private.clipping import ClippedSum, Part
from silo_agent.training.ranks.private.record_gradients import RecordGradients
from silo_agent.training.ranks.private.record_places import RecordPlaces

DELTA = Decimal("0.0001")
"""Below one over the number of a silo's records, 720."""
CLIPPING_NORM = 0.1
LEAST_NOISE, MOST_NOISE, NOISE_PLACES = 0.2, 40.0, 3


@dataclass(frozen=True)
class Noise:
    """Of each step's sum: in clipping norms; `expected` is what a sum is divided by."""

    multiplier: float
    expected: int
    seed: tuple[int, ...]


@lru_cache(maxsize=64)
def noise_multiplier(epsilon: float, rate: Decimal, steps: int) -> float:
    """The least, to three places, that gives `epsilon` at `DELTA` after so many steps."""
    low, high = LEAST_NOISE, MOST_NOISE
    while high - low > 10**-NOISE_PLACES:
        middle = (low + high) / 2
        is_enough = _epsilon(rate, middle, steps) <= epsilon
        low, high = (low, middle) if is_enough else (middle, high)
    return round(high, NOISE_PLACES)


def _epsilon(rate: Decimal, noise: float, steps: int) -> float:
    try:
        return float(epsilon_of([PrivateSteps(rate, Decimal(repr(noise)), steps)], DELTA))
    except NoGuaranteeError:
        return float("inf")


def drawn_batches(
    sequences: Tokens, settings: Settings, seed: tuple[int, ...]
) -> tuple[Tokens, ...]:
    """For each step of a round what it draws, each (sequences, length), maybe none."""
    rng = np.random.default_rng([*seed, 2])
    rate = settings.private_sequences / len(sequences)
    return tuple(sequences[rng.random(len(sequences)) < rate] for _ in range(settings.local_steps))


def noise_of(epsilon: float, sequences: Tokens, settings: Settings, seed: tuple[int, ...]) -> Noise:
    """For all steps that a silo does."""
    rate = Decimal(settings.private_sequences) / Decimal(len(sequences))
    multiplier = noise_multiplier(epsilon, rate, settings.steps)
    return Noise(multiplier, settings.private_sequences, seed)


class PrivateGradients:
    """Puts a step's clipped and noised mean gradient where the optimizer looks for it."""

    def __init__(self, model: Any, parameters: dict[str, torch.nn.Parameter], noise: Noise) -> None:
        self._model, self._parameters, self._noise = model, parameters, noise
        self._records = RecordGradients(model, parameters, torch.device("cpu"))
        self._generator = torch.Generator().manual_seed(_number(noise.seed))

    def put(self, batch: Tokens) -> None:
        """Of the sequences that a step drew."""
        shapes = {name: p.shape for name, p in self._parameters.items()}
        total = ClippedSum(shapes, CLIPPING_NORM, torch.device("cpu"))
        if len(batch):
            self._add(batch, total)
        deviation = self._noise.multiplier * CLIPPING_NORM
        normal = torch.randn(len(total.values), generator=self._generator)
        total.values.add_(normal, alpha=deviation).div_(self._noise.expected)
        for name, gradient in total.by_name().items():
            self._parameters[name].grad = gradient

    def end(self) -> None:
        """Leave the model as it was."""
        self._records.end()

    def _add(self, batch: Tokens, total: ClippedSum) -> None:
        places = RecordPlaces([_row(ids) for ids in batch], torch.device("cpu"))
        ids = torch.from_numpy(batch)
        _, gradients = self._records.of(
            places, lambda: next_token_loss(self._model, ids) * len(batch)
        )
        parts = [Part(record, 1.0) for record in places.order]
        total.add(gradients, parts, places.order)


def _row(ids: Sequence[int]) -> PackedSequence:
    row = PackedSequence()
    row.append(list(ids), list(ids))
    return row


def _number(seed: tuple[int, ...]) -> int:
    return int(np.random.default_rng([*seed, 3]).integers(2**62))
