"""How alike the changes of honest silos are, beside those of copies with noise.

Silos of the bake-off's federation play its rounds. The partitions are those of the bake-off and, as
the hardest case, silos that see the very same records in another order. A copy gets noise on both
factors, relative to how far each moved from the start.
"""

import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.table import Table

from aggregator.evidence.likeness import COPY_COSINE, exact_cosine
from benchmarks.quality.bake_off import workers
from benchmarks.quality.base_model import TopicSequences
from benchmarks.quality.contenders import Contender, stacked
from benchmarks.quality.federation import Cell, local_adapters
from benchmarks.quality.learner import MemoryAdapter
from benchmarks.quality.partition import SiloData, partitioned
from benchmarks.quality.settings import Settings, partition_name
from data_contracts.adapters.starting_adapter import AdapterSource

LEARNING_RATES = (1e-2, 4e-2)
NOISE = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
SAME_RECORDS = "the same records"
STEPS = (10, 40)


def measured(settings: Settings, base: Path, output: Path) -> Table:
    """Run all, write `output`, and give a table of quantiles."""
    partitions: list[float | str | None] = [*settings.alphas, SAME_RECORDS]
    cases = list(itertools.product(partitions, LEARNING_RATES, STEPS))
    with workers() as pool:
        jobs = [pool.submit(cosines, settings, base, *case) for case in cases]
        found = [(case, job.result()) for case, job in zip(cases, jobs, strict=True)]
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"partition": _name(p), "learning_rate": rate, "local_steps": steps} | result
        for (p, rate, steps), result in found
    ]
    output.write_text(json.dumps(rows, indent=1) + "\n")
    return _table(rows)


def cosines(
    settings: Settings, base: Path, partition: float | str | None, rate: float, steps: int
) -> dict[str, list[float]]:
    """Between every two silos in each of the rounds, and of copies with each noise."""
    settings = replace(settings, local_steps=steps, rounds=max(2, settings.steps // steps))
    seed = settings.tuning_seed
    sequences = TopicSequences.load(base)
    alpha = partition if isinstance(partition, float) else None
    silos = partitioned(sequences.train, settings.silos, alpha, seed)
    if partition == SAME_RECORDS:
        silos = list(_shuffled(silos[0], settings.silos))
    cell = Cell(Contender("likeness", stacked()), alpha, seed, rate)
    found: dict[str, list[float]] = {"honest": [], **{f"noise {n:g}": [] for n in NOISE}}
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="consortia-likeness-") as name:
        rounds = local_adapters(cell, cell.entrant, settings, base, silos, Path(name))
        for start, locals_ in rounds:
            pairs = itertools.combinations(locals_, 2)
            found["honest"] += [exact_cosine(one, other, start) for one, other in pairs]
            for noise in NOISE:
                copy = noised(rng, locals_[0], start, noise)
                found[f"noise {noise:g}"].append(exact_cosine(locals_[0], copy, start))
    return found


def noised(
    rng: np.random.Generator, own: AdapterSource, start: AdapterSource, size: float
) -> MemoryAdapter:
    """A copy with Gaussian noise on each factor, `size` of the root mean square of its change."""
    tensors = {}
    for target in own.layout.targets:
        for name, values, began in zip(
            ("A", "B"), own.module(target), start.module(target), strict=True
        ):
            moved = float(np.sqrt(np.square(values - began).mean()))
            noise = rng.standard_normal(values.shape, dtype=np.float32) * np.float32(size * moved)
            tensors[f"base_model.model.{target.module}.lora_{name}.weight"] = values + noise
    return MemoryAdapter(own.layout, tensors)


def _shuffled(silo: SiloData, silos: int) -> Iterator[SiloData]:
    for number in range(silos):
        order = np.random.default_rng(number).permutation(len(silo.sequences))
        yield replace(silo, sequences=silo.sequences[order])


def _name(partition: float | str | None) -> str:
    return partition if isinstance(partition, str) else partition_name(partition)


def _table(rows: list[dict[str, object]]) -> Table:
    table = Table(title=f"cosines between changes (a copy from {COPY_COSINE:g} on)")
    for heading in ("silos", "rate", "steps", "honest: median", "highest", *map(str, NOISE)):
        table.add_column(heading, justify="right")
    for row in rows:
        honest = np.array(row["honest"])
        noised_ = [f"{np.min(np.array(row[f'noise {n:g}'])):.4f}" for n in NOISE]
        table.add_row(
            str(row["partition"]),
            str(row["learning_rate"]),
            str(row["local_steps"]),
            f"{np.median(honest):.4f}",
            f"{honest.max():.4f}",
            *noised_,
        )
    return table
