"""How fast a silo trains, beside what it would run without the product.

`make bench-train` (QUICK=1: few steps, once, without the peers). Every contender trains the demo's
model on the demo's records in two processes of one thread each, by turns, because others use the
machine as well; told are medians of tokens that are no padding by second of the training steps.
Then rounds of a real federation, of Flower and of NVIDIA FLARE: what they take besides those steps.
"""

import argparse
import json
import shutil
import sys
from statistics import median
from typing import Any

from benchmarks.machine import machine
from benchmarks.training.contenders import (
    BARE,
    BARE_WHOLE,
    CONTENDERS,
    GROUPED,
    OURS,
    PADDED,
    Run,
)
from benchmarks.training.material import LENGTH, RANKS, SEQUENCES, STATE, Material, prepared
from benchmarks.training.overhead import POLLS, Overhead, consortia
from benchmarks.training.overhead import peer as peer_overheads
from silo_agent.training.processes.launch import run_training
from silo_agent.training.processes.resident_ranks import ResidentRanks

RESULTS, QUICK_RESULTS = STATE / "bench/train.json", STATE / "bench/train-quick.json"
WORK = STATE / "bench/train"
STEPS, REPEATS, ROUNDS = 3, 3, 4
QUICK_STEPS = 2
PEERS = ("flower", "nvflare")


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int)
    chosen = parser.parse_args()
    steps = QUICK_STEPS if chosen.quick else STEPS
    repeats = chosen.repeats or (1 if chosen.quick else REPEATS)
    shutil.rmtree(WORK, ignore_errors=True)
    material = prepared(WORK, steps)
    lengths = material.lengths()
    say(f"records: {json.dumps(lengths)} tokens; {RANKS} ranks, {steps} steps")
    beside = overheads(chosen.quick)
    figures = {**_rates(speeds(material, repeats)), **beside}
    figures |= {"memory_estimate_worst_error": _memory_error()}
    figures |= {"record_tokens": lengths, "steps": steps, "repeats": repeats}
    figures |= {"poll_seconds": POLLS, "machine": machine("two")}
    results = QUICK_RESULTS if chosen.quick else RESULTS
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(figures, indent=1) + "\n")
    say(json.dumps(figures, indent=1))


def speeds(material: Material, repeats: int) -> dict[str, list[Run]]:
    """Every contender as often, by turns."""
    found: dict[str, list[Run]] = {name: [] for name in CONTENDERS}
    for _ in range(repeats):
        for name, contender in CONTENDERS.items():
            run = contender(material)
            found[name].append(run)
            say(f"{name}: {run.tokens_per_s:.1f} tokens/s ({run.tokens} in {run.seconds:.1f} s)")
    return found


def overheads(quick: bool) -> dict[str, Any]:
    """Cold and warm, beside the peers; and whether a warm rank trains what a cold one does."""
    material = prepared(WORK / "rounds", 1)
    own = consortia(material, 2 if quick else ROUNDS, WORK / "federation")
    found: dict[str, Any] = {"overhead_cold_s": own[0].seconds, "overhead_warm_s": _median(own[1:])}
    for peer in () if quick else PEERS:
        rounds = peer_overheads(peer, material, ROUNDS)
        found[f"{peer}_overhead_cold_s"] = rounds[0].seconds
        found[f"{peer}_overhead_s"] = _median(rounds[1:])
    found = {name: round(seconds, 2) for name, seconds in found.items()}
    found["warm_equals_cold"] = warm_equals_cold(material)
    say(json.dumps(found))
    return found


def warm_equals_cold(material: Material) -> bool:
    """Whether ranks that have trained another job before give the same bytes as new ones."""
    seed = material.recipe.model_copy(update={"seed": 2})
    jobs = [material.job("cold"), material.job("other"), material.job("warm")]
    jobs[1] = jobs[1].model_copy(update={"recipe": seed})
    ranks = ResidentRanks(material.folder / "ranks", keep_seconds=3600)
    try:
        adapters = [run_training(job, ranks=ranks).adapter.read_bytes() for job in jobs]
    finally:
        ranks.end()
    return adapters[0] == adapters[2] != adapters[1]


def _median(rounds: list[Overhead]) -> float:
    return median(each.seconds for each in rounds)


def _memory_error() -> float | None:
    """The worst of the last `make bench-memory`; None where that was not run."""
    path = STATE / "bench/memory.json"
    if not path.exists():
        return None
    cells = json.loads(path.read_text())
    return round(max(abs(c["estimated"] / c["measured"] - 1) for c in cells), 3)


def _rates(runs: dict[str, list[Run]]) -> dict[str, Any]:
    rate = {name: median(run.tokens_per_s for run in of_one) for name, of_one in runs.items()}
    padding = {
        name: round(1 - sum(r.tokens for r in of_one) / sum(r.places for r in of_one), 3)
        for name, of_one in runs.items()
        if all(run.places for run in of_one)
    }
    # The faster of the two ways to write the bare script is the one to be measured by.
    bare = max(rate[BARE], rate[BARE_WHOLE])
    return {
        "tokens_per_s": round(rate[OURS], 1),
        "bare_deepspeed_tokens_per_s": round(bare, 1),
        "padded_trainer_tokens_per_s": round(rate[PADDED], 1),
        "grouped_trainer_tokens_per_s": round(rate[GROUPED], 1),
        "bare_deepspeed_whole_loss_tokens_per_s": round(rate[BARE_WHOLE], 1),
        "of_bare_deepspeed": round(rate[OURS] / bare, 3),
        "of_padded_trainer": round(rate[OURS] / rate[PADDED], 2),
        "of_grouped_trainer": round(rate[OURS] / rate[GROUPED], 2),
        "padding_share": padding,
        "ranks": RANKS,
        "sequences_per_step": SEQUENCES,
        "sequence_length": LENGTH,
    }


def say(line: str) -> None:
    """Progress, on stdout."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
