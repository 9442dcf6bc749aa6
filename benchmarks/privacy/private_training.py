"""`make bench-dp`: private steps beside plain ones and beside Opacus, on one model and its records.

One rank with one thread each, by turns, because others use the machine as well; seconds are of CPU
time for the same reason, tokens are no padding, and told are medians of steps. The model
has SmolLM2's shape (135 million parameters) with LoRA on all linear layers; with `--quick` it is a
small one. Opacus has an environment of its own with PEFT 0.13.2: with newer ones its hooks find
no weights to train. Adds to `.consortia/bench/privacy.json`, and drops nothing there.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.machine import machine
from benchmarks.peers.environments import environment_python
from benchmarks.privacy.dp_material import QUICK, SMOLLM2, prepared

OUTPUT = Path(".consortia/bench/privacy.json")
WORK = Path(".consortia/bench/dp")
NAMES = {"plain": "plain", "private": "dp", "opacus": "opacus"}
REPEATS, LIMIT_SECONDS = 2, 3600

Rates = dict[str, list[float]]


def main() -> None:
    """Measure by turns, tell, and add to the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.privacy.private_training")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    chosen = parser.parse_args()
    settings = QUICK if chosen.quick else SMOLLM2
    folder = prepared(WORK / ("quick" if chosen.quick else "smollm2"), settings).resolve()
    commands = [[sys.executable, "-m", "benchmarks.privacy.dp_ours", str(folder)]]
    opacus, why = _opacus()
    if opacus is not None:
        commands.append([str(opacus), str(_script()), str(folder)])
    found: Rates = {}
    for _ in range(chosen.repeats):
        for command in commands:
            for name, rates in _run(command).items():
                found.setdefault(name, []).extend(rates)
                _say(f"{name}: {' '.join(f'{rate:.1f}' for rate in rates)} tokens per second")
    figures = {f"{NAMES[name]}_tokens_per_s": median(rates) for name, rates in found.items()}
    _add(figures, None if opacus else why, quick=chosen.quick)


def _run(command: list[str]) -> Rates:
    """Tokens by second of each step, from the last line that a command prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
        timeout=LIMIT_SECONDS,
    )
    found: Rates = json.loads(done.stdout.splitlines()[-1])
    return found


def _opacus() -> tuple[Path | None, str]:
    """Its interpreter, or why there is none: a package index may not have it."""
    try:
        return environment_python("opacus"), ""
    except subprocess.CalledProcessError as error:
        return None, f"its environment could not be made: {error}"


def _script() -> Path:
    return Path("benchmarks/peers/opacus/dp_training.py").resolve()


def _add(figures: dict[str, float], why: str | None, *, quick: bool) -> None:
    known = json.loads(OUTPUT.read_text()) if OUTPUT.exists() else {}
    missing = {"opacus_tokens_per_s": None, "opacus_reason": why} if why else {}
    told = {"dp_model": "small" if quick else "135M", "dp_machine": machine("one")}
    rounded = {name: round(rate, 2) for name, rate in figures.items()}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(known | rounded | missing | told, indent=1) + "\n")
    share = figures["dp_tokens_per_s"] / figures["plain_tokens_per_s"]
    _say(f"private steps train {share:.2f} of the tokens of plain ones; written {OUTPUT}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
