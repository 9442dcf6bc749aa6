"""A silo's training on GPUs: how fast, how much memory, and whether it is the adapter of a CPU.

`make bench-gpu`, at most eight minutes: the demo's model in bfloat16, one rank a GPU, ZeRO 1, 2
and 3. Tokens by second beside a bare DeepSpeed script on the same packed sequences; the estimate of
memory beside what PyTorch had allocated at most; and the change of an adapter beside that of two
ranks on the CPU in float32. `--device cpu` goes the same way without a GPU, to try the script.
"""

import argparse
import json
import shutil
import sys
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from benchmarks.machine import machine
from benchmarks.memory import estimate_of
from benchmarks.training.contenders import Run, run_script
from benchmarks.training.material import RANKS, STATE, Material, prepared
from silo_agent.training.engine_spec import PINNED, Device, Stage
from silo_agent.training.job import TrainingJob
from silo_agent.training.processes.launch import run_training
from silo_agent.training.ranks.starting_tensors import starting_tensors
from silo_agent.training.results import Progress, TrainingResult

RESULTS = STATE / "bench/gpu.json"
WORK = STATE / "bench/gpu"
STEPS, COMPARED_STEPS = 40, 3
STAGES: tuple[Stage, ...] = (1, 2, 3)


def main() -> None:
    """Measure, print, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=STEPS)
    chosen = parser.parse_args()
    device: Device = chosen.device
    ranks = _gpus() if device == "cuda" else RANKS
    shutil.rmtree(WORK, ignore_errors=True)
    short, long = prepared(WORK / "short", COMPARED_STEPS), prepared(WORK / "long", chosen.steps)
    expected = _change(short, _trained(short, "on-cpu", "cpu", 2, RANKS)[0])
    figures: dict[str, Any] = {"ranks": ranks, "steps": chosen.steps, "device": device}
    for stage in STAGES:
        # Warm first: a GPU's libraries are loaded by the first step that needs them.
        result, _ = _trained(short, f"stage-{stage}", device, stage, ranks)
        change = _change(short, result)
        fast, peak = _trained(long, f"stage-{stage}", device, stage, ranks)
        bare = _bare(long, stage, ranks, device)
        job = _job(long, "", device, stage, ranks)
        measured = peak if device == "cuda" else fast.peak_rss_bytes_per_rank
        figures[f"stage_{stage}"] = {
            "tokens_per_s": round(fast.tokens_per_second, 1),
            "bare_deepspeed_tokens_per_s": round(bare.tokens_per_s, 1),
            "of_bare_deepspeed": round(fast.tokens_per_second / bare.tokens_per_s, 3),
            "estimated_bytes": estimate_of(job).total_bytes,
            "measured_bytes": measured,
            "change_beside_cpu": _distance(change, expected),
            "last_step_loss": round(result.last_step_loss, 4),
        }
        say(json.dumps(figures[f"stage_{stage}"]))
    figures["machine"] = machine("one a GPU" if device == "cuda" else "two")
    if device == "cuda":
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    say(json.dumps(figures, indent=1))


def _gpus() -> int:
    import torch

    found = torch.cuda.device_count()
    if not found:
        raise SystemExit("no GPU that PyTorch sees; --device cpu goes the same way without one")
    return found


def _job(material: Material, name: str, device: Device, stage: Stage, ranks: int) -> TrainingJob:
    precision = PINNED[device].precision
    changes = {"device": device, "precision": precision, "zero_stage": stage, "ranks": ranks}
    return material.job(name or "job").model_copy(update=changes)


def _trained(
    material: Material, name: str, device: Device, stage: Stage, ranks: int
) -> tuple[TrainingResult, int | None]:
    """The result, and the most that PyTorch had allocated on the first GPU."""
    peaks: list[int] = []

    def note(progress: Progress) -> None:
        peaks.append(progress.gpu_memory_bytes or 0)

    job = _job(material, name, device, stage, ranks)
    return run_training(job, on_progress=note), max(peaks, default=0) or None


def _bare(material: Material, stage: Stage, ranks: int, device: Device) -> Run:
    settings = json.loads(material.settings.read_text())
    material.settings.write_text(json.dumps(settings | {"zero_stage": stage, "ranks": ranks}))
    return run_script("bare_deepspeed", "answers", material, ranks=ranks, device=device)


def _change(material: Material, result: TrainingResult) -> np.ndarray:
    """All numbers of the adapter, less those that training began with."""
    found, start = load_file(result.adapter), dict(starting_tensors(material.layout, None))
    return np.concatenate([(found[name] - start[name]).ravel() for name in sorted(found)])


def _distance(change: np.ndarray, expected: np.ndarray) -> float:
    """Length of the difference by the length of what was expected."""
    return round(float(np.linalg.norm(change - expected) / np.linalg.norm(expected)), 5)


def say(line: str) -> None:
    """Progress, on stdout."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
