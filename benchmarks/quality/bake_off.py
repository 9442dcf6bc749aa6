"""All cells of the bake-off on all cores: learning rates at a seed of their own, then the figures.

One process per core with one PyTorch thread each: a model this small gains nothing from more.
A cell depends on nothing but its own value, so figures do not depend on who computed what when.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev

import torch

from benchmarks.quality.contenders import BASELINES, Baseline, Contender
from benchmarks.quality.federation import Cell, Losses, losses_of
from benchmarks.quality.settings import Settings

Progress = Callable[[int, int, Cell, Losses], None]
_POOLED: frozenset[str] = frozenset({"base", "centralised", "centralised_small_batches"})
"""Baselines that do not depend on the partition: computed for IID alone."""


@dataclass(frozen=True)
class Figure:
    """Test loss of one entrant under one partition over all seeds, in nats per token."""

    mean: float
    deviation: float
    own_mean: float
    learning_rate: float
    merge_error: float


@dataclass
class BakeOff:
    """Runs cells and keeps what they gave."""

    settings: Settings
    base: Path
    entrants: Sequence[Contender]
    progress: Progress
    baselines: Sequence[Baseline] = BASELINES
    results: dict[tuple[str, float | None, int, float], Losses] = field(default_factory=dict)

    def run(self) -> None:
        """Tune, then measure at other seeds than those that anything was chosen on."""
        with workers() as pool:
            self._compute(pool, self._tuning_cells())
            self._compute(pool, self._measuring_cells())

    def figure(self, name: str, alpha: float | None) -> Figure:
        """The figure of an entrant; that of the IID partition for pooled baselines."""
        alpha = None if name in _POOLED else alpha
        rate = self.rate(name)
        found = [self.results[name, alpha, seed, rate] for seed in self.settings.seeds]
        tests = [losses.test for losses in found]
        return Figure(
            mean=fmean(tests),
            deviation=stdev(tests) if len(tests) > 1 else 0.0,
            own_mean=fmean(losses.own for losses in found),
            learning_rate=rate,
            merge_error=fmean(losses.merge_error for losses in found),
        )

    def rate(self, name: str) -> float:
        """The tuned learning rate: lowest validation loss at the tuning seed, on one partition."""
        name = {c.name: c.tuned_as for c in self.entrants}.get(name) or name
        grid, seed = self._grid(name), self.settings.tuning_seed
        if len(grid) == 1:
            return grid[0]
        alpha = self._tuning_alpha(name)
        return min(grid, key=lambda r: self.results[name, alpha, seed, r].validation)

    def _compute(self, pool: ProcessPoolExecutor, cells: Iterable[Cell]) -> None:
        missing = [cell for cell in cells if _key(cell) not in self.results]
        jobs = {pool.submit(losses_of, cell, self.settings, self.base): cell for cell in missing}
        for done, job in enumerate(as_completed(jobs), start=1):
            cell = jobs[job]
            self.results[_key(cell)] = job.result()
            self.progress(done, len(jobs), cell, job.result())

    def _tuning_cells(self) -> list[Cell]:
        seed = self.settings.tuning_seed
        return [
            Cell(entrant, self._tuning_alpha(_name(entrant)), seed, rate)
            for entrant in (*self.baselines, *self.entrants)
            if not (isinstance(entrant, Contender) and entrant.tuned_as)
            for rate in self._grid(_name(entrant))
            if len(self._grid(_name(entrant))) > 1
        ]

    def _measuring_cells(self) -> list[Cell]:
        return [
            Cell(entrant, alpha, seed, self.rate(_name(entrant)))
            for entrant, alpha in self._pairs()
            for seed in self.settings.seeds
        ]

    def _tuning_alpha(self, name: str) -> float | None:
        return None if name in _POOLED else self.settings.tuning_alpha

    def _pairs(self) -> list[tuple[Contender | Baseline, float | None]]:
        entrants: list[Contender | Baseline] = [*self.baselines, *self.entrants]
        return [
            (entrant, alpha)
            for entrant in entrants
            for alpha in self.settings.alphas
            if alpha is None or _name(entrant) not in _POOLED
        ]

    def _grid(self, name: str) -> tuple[float, ...]:
        return self.settings.learning_rates[:1] if name == "base" else self.settings.learning_rates


def _name(entrant: Contender | Baseline) -> str:
    return entrant if isinstance(entrant, str) else entrant.name


def _key(cell: Cell) -> tuple[str, float | None, int, float]:
    return cell.name, cell.alpha, cell.seed, cell.learning_rate


def workers() -> ProcessPoolExecutor:
    """One process per core, each with one PyTorch thread."""
    # Read by OpenMP when a child loads PyTorch: before that nothing else can limit it.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    cores = len(os.sched_getaffinity(0))
    return ProcessPoolExecutor(cores, get_context("spawn"), initializer=_quiet_single_thread)


def _quiet_single_thread() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
