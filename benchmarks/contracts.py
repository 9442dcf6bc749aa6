"""The data gate's speed and memory on one core, with the machine that it was measured on.

One million records of 400 characters go once through findings and suite; the unchanged gate is the
median of five new processes (contract read, outcome found, verdict signed); the copyright look-up
and the personal-data pass are medians of their own benchmarks. The million records are salad, words
drawn from a made-up vocabulary from a seed, one in a thousand with an address or a card number in
it; real texts for the other figures are named in their benchmarks.

Everything is pinned to one core, child processes included.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks import copyright_probe, personal_data
from benchmarks.contract_home import make_home, open_gate, sign_verdict
from benchmarks.machine import machine

RECORDS = 1_000_000
CHARACTERS = 400
WORDS_DRAWN = 72
UNCHANGED_RUNS = 5
PERSONAL_ONE_IN = 1000
OUTPUT = Path(".consortia/bench/contracts.json")


def main() -> None:
    """Run everything; print a line each and write the JSON file."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    console = Console()
    console.print(machine("one"), highlight=False)
    figures: dict[str, float] = {}
    for step in (_million, _copyright, _personal_data):
        for name, value in step().items():
            figures[name] = round(value, 6)
            console.print(f"{name}: {value:.6g}", highlight=False)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(figures, indent=1) + "\n")
    console.print(f"written {OUTPUT}")


def _million() -> dict[str, float]:
    """Seconds and peak memory of one check, then seconds of the unchanged gate."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        make_home(home, _records(RECORDS))
        checked = _child("check", home)
        unchanged = [_child("unchanged", home)["seconds"] for _ in range(UNCHANGED_RUNS)]
    return {
        "million_records_seconds": checked["seconds"],
        "peak_mb": checked["peak_mb"],
        "unchanged_gate_seconds": statistics.median(unchanged),
    }


def _copyright() -> dict[str, float]:
    found = copyright_probe.measure()
    alarms = found["clean_salad_false_alarms"] + found["clean_installed_false_alarms"]
    texts = found["clean_salad_texts"] + found["clean_installed_texts"]
    return {
        "copyright_mb_per_s": found["find_overlap_mb_per_s"],
        "copyright_missed_spans": found["planted_spans_missed"],
        "copyright_false_alarms_per_100k": 100_000 * alarms / texts,
    }


def _personal_data() -> dict[str, float]:
    found = personal_data.measure()
    names = ("personal_data_docs_per_s", "escalated_share", "personal_data_missed_vs_presidio")
    return {name: found[name] for name in names}


def _child(what: str, home: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.contracts", what, str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure(what: str, home: Path) -> dict[str, float]:
    """One check in this process; an unchanged one must not load Great Expectations."""
    began = time.perf_counter()
    gate = open_gate(home)
    outcome = gate.check()
    sign_verdict(outcome, home)
    seconds = time.perf_counter() - began
    if what == "unchanged" and "great_expectations" in sys.modules:
        raise RuntimeError("the unchanged gate loaded Great Expectations")
    if outcome.train_records + outcome.heldout_records < RECORDS // 2:
        raise RuntimeError("the benchmark's records were not looked at")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mb": peak}


def _records(count: int) -> Iterator[dict[str, str]]:
    """`count` different records of CHARACTERS characters, prompt and answer together."""
    rng = np.random.default_rng(7)
    vocabulary = copyright_probe.make_vocabulary(rng)
    salad = copyright_probe.salad_texts(rng, vocabulary, count, WORDS_DRAWN)
    for number, text in enumerate(salad):
        prompt, answer = text[:60], text[60:CHARACTERS]
        if number % PERSONAL_ONE_IN == 0:
            answer = answer[:-40] + f" write to reader{number}@example.org"
        yield {
            "id": f"record-{number}",
            "subject": f"subject-{number % 50_000}",
            "prompt": prompt,
            "answer": answer,
            "licence": ("MIT", "CC-BY-4.0", "Apache-2.0 OR MIT")[number % 3],
            "source": "benchmark",
        }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(_measure(sys.argv[1], Path(sys.argv[2]))) + "\n")
    else:
        main()
