"""How much of the merged adapter lies beyond the lowest rank of a silo, round by round.

raFLoRA (2602.13486) names it rank collapse: with mixed ranks, silos that cannot train a rank still
take weight from it, so that what others learn there shrinks geometrically. Three silos of ranks 4,
8 and 16 play twenty rounds of five steps, beside the same with rank 16 everywhere.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
from rich.table import Table

from benchmarks.quality.bake_off import workers
from benchmarks.quality.base_model import TopicSequences
from benchmarks.quality.contenders import Contender, by_trained_ranks, stacked
from benchmarks.quality.federation import Cell, states_of
from benchmarks.quality.learner import learner
from benchmarks.quality.partition import partitioned
from benchmarks.quality.settings import Settings
from data_contracts.adapters.starting_adapter import AdapterSource

RANKS = (4, 8, 16)
ROUNDS, LOCAL_STEPS = 20, 5
LEARNING_RATE = 1e-2
SHOWN = (1, 2, 3, 5, 10, 15, 20)
ENTRANTS = (
    Contender("all silos, part alone", stacked(), ranks=RANKS, part_alone=True),
    Contender("all silos", stacked(), ranks=RANKS),
    Contender("those that train it", by_trained_ranks(), ranks=RANKS),
    Contender("rank 16 everywhere", stacked(), ranks=(16,)),
)


def measured(settings: Settings, base: Path, output: Path) -> Table:
    """Run all, write `output`, and give the table of the rounds in `SHOWN`."""
    settings = replace(settings, silos=len(RANKS), rounds=ROUNDS, local_steps=LOCAL_STEPS)
    with workers() as pool:
        jobs = [pool.submit(tail_energies, entrant, settings, base) for entrant in ENTRANTS]
        found = {e.name: job.result() for e, job in zip(ENTRANTS, jobs, strict=True)}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")
    table = Table(title=f"share of the energy beyond rank {min(RANKS)}, after so many rounds")
    table.add_column("a rank is averaged over", no_wrap=True)
    for number in SHOWN:
        table.add_column(str(number), justify="right")
    table.add_column("test loss", justify="right")
    for name, (shares, loss) in found.items():
        shown = (f"{shares[number - 1]:.1%}" for number in SHOWN)
        table.add_row(name, *shown, f"{loss:.4f}")
    return table


def tail_energies(entrant: Contender, settings: Settings, base: Path) -> tuple[list[float], float]:
    """The share after every round, mean over modules by energy, and the test loss at the end."""
    cell = Cell(entrant, settings.tuning_alpha, settings.tuning_seed, LEARNING_RATE)
    sequences = TopicSequences.load(base)
    silos = partitioned(sequences.train, settings.silos, cell.alpha, cell.seed)
    shares: list[float] = []
    with tempfile.TemporaryDirectory(prefix="consortia-ranks-") as name:
        for state in states_of(cell, entrant, settings, base, silos, Path(name)):
            shares.append(tail_energy(state.adapter, min(RANKS)))
        layout = state.adapter.layout.model_copy(update={"seed": 0})
        losses = learner(base, layout).topic_losses(state.adapter, sequences.test)
    return shares, fmean(losses.tolist())


def tail_energy(adapter: AdapterSource, rank: int) -> float:
    """Share of the squared singular values beyond the first `rank` of each module's product."""
    beyond, whole = 0.0, 0.0
    for target in adapter.layout.targets:
        a, b = (factor.astype(np.float64) for factor in adapter.module(target))
        energies = np.square(np.linalg.svd(b @ a, compute_uv=False))
        beyond += float(energies[rank:].sum())
        whole += float(energies.sum())
    return beyond / whole
