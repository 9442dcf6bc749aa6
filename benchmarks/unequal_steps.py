"""`make bench-steps`: every other silo does half of the steps; what the merge makes of it.

LoRA on drawn data, as in `benchmarks.attacks.lora_cell`, so that many seeds take seconds: softmax
regression, AdamW on both factors with a warm-up, the heavy ball, the sum of products cut to the
rank. Compared with all silos doing all steps: such silos left out, let in and weighed by tokens (as
the product does), weighed alike, and normalised as FedNova does: sum_i p_i tau_eff / tau_i d_i,
tau_eff = sum_i p_i tau_i, p_i the share of the data (Wang et al. 2020, equation 7).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.attacks.library import Array
from benchmarks.attacks.lora_cell import (
    CLASSES,
    FEATURES,
    RANK,
    Examples,
    Factors,
    drawn_examples,
    factors_of,
)

OUTPUT = Path(".consortia/bench/unequal-steps.json")
SILOS, EXAMPLES, TEST_EXAMPLES = 6, 400, 2000
ALPHAS = (0.3, 100.0)
"""Dirichlet, of how often a silo sees each class: very differently, and nearly alike."""

ROUNDS, STEPS, BATCH, WARMUP = 12, 20, 16, 2
RATE, BETA_1, BETA_2, EPSILON, MOMENTUM = 0.02, 0.9, 0.999, 1e-8, 0.3
SEEDS = 10

Coefficients = Callable[[Array], Array]
"""What each silo's change is multiplied by, from the steps of all of them (silos,)."""


def by_tokens(steps: Array) -> Array:
    """As the product weighs: a step has as many tokens everywhere."""
    return np.asarray(steps / steps.sum())


def alike(steps: Array) -> Array:
    """The mean."""
    return np.full(len(steps), 1 / len(steps))


def fednova(steps: Array) -> Array:
    """With as much data everywhere."""
    return np.asarray(steps.mean() / steps / len(steps))


@dataclass(frozen=True)
class Way:
    """What every other silo does, as a share of the steps, and how changes are summed."""

    name: str
    share: float
    coefficients: Coefficients


WAYS = (
    Way("does all steps", 1, by_tokens),
    Way("is left out", 0, by_tokens),
    Way("does half, weighed by tokens", 0.5, by_tokens),
    Way("does half, weighed alike", 0.5, alike),
    Way("does half, as FedNova", 0.5, fednova),
)


@dataclass(frozen=True)
class Losses:
    """Nats: of a test set of all classes alike, and of the classes as the lesser silos see them."""

    test: float
    lesser: float


class Cell:
    """Data of the silos and of the tests, from one seed."""

    def __init__(self, alpha: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        truth = rng.normal(size=(CLASSES, RANK)) @ rng.normal(size=(RANK, FEATURES)) / RANK**0.5
        mixes = rng.dirichlet(np.full(CLASSES, alpha), SILOS)
        self._silos = [drawn_examples(rng, truth, mix, EXAMPLES) for mix in mixes]
        alike_mix = np.full(CLASSES, 1 / CLASSES)
        self._test = drawn_examples(rng, truth, alike_mix, TEST_EXAMPLES)
        self._lesser = drawn_examples(rng, truth, mixes[1::2].mean(axis=0), TEST_EXAMPLES)
        self._first_a = rng.normal(size=(RANK, FEATURES)) / FEATURES**0.5
        self._seed = seed

    def run(self, way: Way) -> Losses:
        """After all rounds; each silo has the same batches in every way."""
        steps = [STEPS if i % 2 == 0 else round(STEPS * way.share) for i in range(SILOS)]
        taking_part = [i for i in range(SILOS) if steps[i]]
        coefficients = way.coefficients(np.array([steps[i] for i in taking_part]))
        start: Factors = (np.zeros((CLASSES, RANK)), self._first_a)
        now = earlier = np.zeros((CLASSES, FEATURES))
        for number in range(ROUNDS):
            changes = [
                np.matmul(*self._trained(start, i, steps[i], number)) - now for i in taking_part
            ]
            merged = now + np.tensordot(coefficients, np.stack(changes), axes=1)
            start = factors_of(merged + MOMENTUM * (now - earlier))
            now, earlier = start[0] @ start[1], now
        return Losses(_loss(start, self._test), _loss(start, self._lesser))

    def _trained(self, start: Factors, silo: int, steps: int, number: int) -> Factors:
        rng, examples = np.random.default_rng([self._seed, silo, number]), self._silos[silo]
        factors = [factor.copy() for factor in start]
        moments = [(np.zeros_like(factor), np.zeros_like(factor)) for factor in start]
        for step in range(1, steps + 1):
            rows = rng.choice(EXAMPLES, BATCH, replace=False)
            batch = Examples(examples.features[rows], examples.targets[rows])
            rate = RATE * min(1.0, step / (WARMUP + 1))
            gradients = _gradients((factors[0], factors[1]), batch)
            for factor, (first, second), gradient in zip(factors, moments, gradients, strict=True):
                first += (1 - BETA_1) * (gradient - first)
                second += (1 - BETA_2) * (gradient**2 - second)
                scale = np.sqrt(second / (1 - BETA_2**step)) + EPSILON
                factor -= rate * first / (1 - BETA_1**step) / scale
        return factors[0], factors[1]


def _gradients(factors: Factors, examples: Examples) -> Factors:
    b, a = factors
    hidden = examples.features @ a.T
    errors = (np.exp(_logarithms(factors, examples)) - examples.targets) / len(examples.targets)
    return errors.T @ hidden, (errors @ b).T @ examples.features


def _loss(factors: Factors, examples: Examples) -> float:
    return float(-(_logarithms(factors, examples) * examples.targets).sum(axis=1).mean())


def _logarithms(factors: Factors, examples: Examples) -> Array:
    scores = examples.features @ (factors[0] @ factors[1]).T
    scores = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))


def main() -> None:
    """Every way at every seed, and a table for each partition."""
    told = {}
    for alpha in ALPHAS:
        cells = [Cell(alpha, seed) for seed in range(SEEDS)]
        found = {way.name: [cell.run(way) for cell in cells] for way in WAYS}
        title = f"every other of {SILOS} silos, Dirichlet {alpha:g}, {SEEDS} seeds, nats"
        Console(width=120).print(_table(title, found))
        told[f"dirichlet_{alpha:g}"] = {n: [vars(one) for one in each] for n, each in found.items()}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(told, indent=1) + "\n")


def _table(title: str, found: dict[str, list[Losses]]) -> Table:
    """A difference is to all steps, seed by seed, with its standard error."""
    table = Table(title=title)
    table.add_column("it", no_wrap=True)
    for column in ("test", "more than with all steps", "its own classes", "more than with all"):
        table.add_column(column, justify="right")
    whole = found[WAYS[0].name]
    for name, losses in found.items():
        row: list[str] = []
        for field in ("test", "lesser"):
            ours, theirs = (np.array([getattr(o, field) for o in one]) for one in (losses, whole))
            error = (ours - theirs).std(ddof=1) / len(ours) ** 0.5
            row += [f"{ours.mean():.4f}", f"{(ours - theirs).mean():+.4f} ± {error:.4f}"]
        table.add_row(name, *row)
    return table


if __name__ == "__main__":
    main()
