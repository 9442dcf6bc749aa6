"""`make bench-dp`: private steps beside plain ones and beside Opacus, on one model and its records.

One rank with one thread each, in processes of their own and by turns, because others use the
machine as well; seconds are of CPU time for the same reason, and tokens are no padding. The model
has SmolLM2's shape (135 million parameters) with LoRA on all linear layers; with `--quick` it is a
small one. Opacus has an environment of its own with PEFT 0.13.2: with newer ones its hooks find
no weights to train. Adds to `.consortia/bench/privacy.json`, and drops nothing there.
"""

import argparse
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.machine import machine
from benchmarks.peers.environments import environment_python
from benchmarks.privacy.dp_material import QUICK, SMOLLM2, prepared

OUTPUT = Path(".consortia/bench/privacy.json")
WORK = Path(".consortia/bench/dp")
REPEATS, LIMIT_SECONDS = 3, 3600
PLAIN, PRIVATE, OPACUS = "plain", "dp", "opacus"


def main() -> None:
    """Measure by turns, tell, and add to the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.privacy.private_training")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    chosen = parser.parse_args()
    settings = QUICK if chosen.quick else SMOLLM2
    folder = prepared(WORK / ("quick" if chosen.quick else "smollm2"), settings).resolve()
    opacus, why = _opacus()
    contenders = {
        PLAIN: partial(_ours, folder, "plain"),
        PRIVATE: partial(_ours, folder, "private"),
    }
    if opacus is not None:
        contenders[OPACUS] = partial(_run, [str(opacus), str(_script()), str(folder)])
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(chosen.repeats):
        for name, contender in contenders.items():
            found[name].append(contender())
            _say(f"{name}: {found[name][-1]:.1f} tokens per second of one core")
    figures = {f"{name}_tokens_per_s": round(median(rates), 2) for name, rates in found.items()}
    _add(figures, None if opacus else why, quick=chosen.quick)


def _ours(folder: Path, way: str) -> float:
    return _run([sys.executable, "-m", "benchmarks.privacy.dp_ours", str(folder), way])


def _run(command: list[str]) -> float:
    """Tokens by second, from the last line that a command prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=environment,
        timeout=LIMIT_SECONDS,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    return float(told["tokens"] / told["seconds"])


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
    missing = {f"{OPACUS}_tokens_per_s": None, "opacus_reason": why} if why else {}
    told = {"dp_model": "small" if quick else "135M", "dp_machine": machine("one")}
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(known | figures | missing | told, indent=1) + "\n")
    share = figures["dp_tokens_per_s"] / figures["plain_tokens_per_s"]
    _say(f"private steps train {share:.2f} of the tokens of plain ones; written {OUTPUT}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
