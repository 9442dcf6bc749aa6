"""`python -m benchmarks.quality [--quick]`: run the bake-off, print the table, write the JSON."""

import argparse
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.quality import likeness, rank_collapse
from benchmarks.quality.bake_off import BakeOff
from benchmarks.quality.base_model import prepared_base
from benchmarks.quality.contenders import (
    BASELINES,
    DEFAULT,
    Baseline,
    Contender,
    contenders,
    in_fewer_rounds,
    private_contenders,
)
from benchmarks.quality.federation import Cell, Losses
from benchmarks.quality.settings import Settings, partition_name
from benchmarks.quality.table import render, tell_mixed_ranks, write_json

HOME = Path(".consortia/bench/quality")
OUTPUT = Path(".consortia/bench/quality.json")
LIKENESS_OUTPUT = Path(".consortia/bench/likeness.json")
RANKS_OUTPUT = Path(".consortia/bench/rank-collapse.json")
MERGE_OUTPUT = Path(".consortia/bench/merge.json")
TABLE_WIDTH = 120
QUICK_ENTRANTS = (DEFAULT, "average")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a slice in under 3 minutes")
    parser.add_argument("--seeds", type=int, default=1, help="with --quick: how many of them")
    parser.add_argument(
        "--entrants", help="names, after the default, to run again beside figures that are kept"
    )
    parser.add_argument(
        "--rounds", action="store_true", help="the same steps in fewer rounds, beside what is kept"
    )
    parser.add_argument(
        "--private", action="store_true", help="rules under differential privacy, and the base"
    )
    parser.add_argument(
        "--ranks", action="store_true", help="the energy beyond the lowest rank, and nothing else"
    )
    parser.add_argument(
        "--likeness", action="store_true", help="how alike honest silos and copies are, only"
    )
    return parser


def _chosen(
    options: argparse.Namespace,
) -> tuple[Settings, tuple[Contender, ...], tuple[Baseline, ...]]:
    """Settings, who competes, and what beside them."""
    settings, entrants, baselines = Settings(), contenders(Settings()), BASELINES
    if options.private:
        private = replace(settings, rounds=4, alphas=(None,), tuning_alpha=None)
        if options.quick:
            seeds = settings.seeds[: options.seeds]
            private = replace(private, seeds=seeds, learning_rates=(2e-2,))
        return private, private_contenders(), ("base",)
    if options.quick:
        settings = replace(
            settings,
            seeds=settings.seeds[: options.seeds],
            alphas=(None, 0.1),
            learning_rates=(1e-2,),
        )
        if options.entrants is None:
            entrants = tuple(c for c in entrants if c.name in QUICK_ENTRANTS)
    if options.rounds:
        entrants, baselines = (entrants[0], *in_fewer_rounds(settings)), ()
    if options.entrants is not None:
        # The rate of the default is what others are tuned as.
        names = {DEFAULT, *options.entrants.split(",")}
        entrants, baselines = tuple(c for c in entrants if c.name in names), ()
    return settings, entrants, baselines


def main() -> None:
    """Everything; with `--quick` two rules at one seed and one rate, written nowhere else.

    A cell gives the same figures whenever it runs, so `--entrants` can add to an earlier run.
    """
    options = _parser().parse_args()
    console = Console(width=max(Console().width, TABLE_WIDTH))
    settings, entrants, baselines = _chosen(options)
    cores = len(os.sched_getaffinity(0))
    console.print(f"{platform.machine()}, {cores} cores, PyTorch {torch.__version__}")
    torch.set_num_threads(cores)
    began = time.perf_counter()
    base = prepared_base(settings.base, settings.shares, HOME / "base", console.print)
    if options.ranks:
        console.print(rank_collapse.measured(settings, base, RANKS_OUTPUT))
        return
    if options.likeness:
        console.print(likeness.measured(settings, base, LIKENESS_OUTPUT))
        return
    prepared = time.perf_counter()
    bake_off = BakeOff(settings, base, entrants, lambda *done: _say(console, *done), baselines)
    bake_off.run()
    minutes = {
        "base_minutes": (prepared - began) / 60,
        "tuning_minutes": (time.perf_counter() - prepared) / 60,
    }
    console.print(render(bake_off))
    output = OUTPUT.with_name("quality-quick.json") if options.quick else OUTPUT
    keeps_others = options.private or not baselines
    write_json(bake_off, minutes, output, keep_others=keeps_others)
    tell_mixed_ranks(output, MERGE_OUTPUT)
    console.print(f"base {minutes['base_minutes']:.1f} min, rest {minutes['tuning_minutes']:.1f}")
    console.print(f"written {output}")


def _say(console: Console, done: int, total: int, cell: Cell, losses: Losses) -> None:
    where = f"{cell.name} {partition_name(cell.alpha)} seed {cell.seed}"
    rate = f"rate {cell.learning_rate:g}"
    console.print(
        f"{done}/{total} {where} {rate}: {losses.test:.4f} in {losses.seconds:.0f} s",
        highlight=False,
    )


if __name__ == "__main__":
    main()
