"""The Hugging Face Trainer as most people call it: the same records, padded to the batch's longest.

Started once per rank by torchrun: `padded_trainer.py FOLDER FILE WAY`, where the way is `random`,
or `grouped` for batches of records of like length, in an order that is drawn. (The Trainer's own
`group_by_length` begins with the longest of eight hundred, which a few steps would never leave.)
Prints to FILE how many tokens that are not padding it trained in how many seconds of steps.
"""

import json
import os
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

os.environ["ACCELERATE_USE_CPU"] = "true"

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

IGNORED = -100
PER_RANK = 8
"""Records of a rank's batch: the Trainer's own default."""


class _Steps(TrainerCallback):
    """Seconds between the beginnings and the ends of steps."""

    def __init__(self) -> None:
        self.seconds, self._began = 0.0, 0.0

    def on_step_begin(self, *_args: Any, **_more: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, *_args: Any, **_more: Any) -> None:
        self.seconds += time.monotonic() - self._began


class _CountingTrainer(Trainer):
    """Counts the tokens that are trained and no padding, and all places."""

    tokens = places = 0

    def training_step(self, model: Any, inputs: Any, *more: Any, **named: Any) -> torch.Tensor:
        self.tokens += int(inputs["attention_mask"].sum())
        self.places += inputs["attention_mask"].numel()
        return super().training_step(model, inputs, *more, **named)


def _padded(records: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """A batch, each record as long as its longest."""
    rows = [len(record["input_ids"]) for record in records]
    return {
        "input_ids": _filled([r["input_ids"] for r in records], max(rows), 0),
        "labels": _filled([r["labels"] for r in records], max(rows), IGNORED),
        "attention_mask": _filled([[1] * row for row in rows], max(rows), 0),
    }


def _filled(rows: list[list[int]], longest: int, value: int) -> torch.Tensor:
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def _grouped(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Batches of records of like length, in an order that is drawn."""
    ordered = sorted(records, key=lambda record: len(record["input_ids"]))
    batches = [ordered[at : at + PER_RANK] for at in range(0, len(ordered), PER_RANK)]
    Random(1).shuffle(batches)
    return [record for batch in batches for record in batch]


def main(folder: Path, out: Path, way: str) -> None:
    """Train, and let rank 0 tell how fast."""
    settings = json.loads((folder / "settings.json").read_text())
    records = [
        {"input_ids": tokens, "labels": labels}
        for tokens, labels in json.loads((folder / "conversations.json").read_text())
    ]
    if way == "grouped":
        records = _grouped(records)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    store = dist.FileStore(str(out.with_suffix(".store")), ranks)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32)
    lora = LoraConfig(
        r=settings["rank"], lora_alpha=2 * settings["rank"], target_modules=settings["targets"]
    )
    model.config.use_cache = False
    steps = _Steps()
    trainer = _CountingTrainer(
        model=get_peft_model(model, lora),
        args=TrainingArguments(
            output_dir=str(out.with_suffix(".trainer")),
            use_cpu=True,
            ddp_backend="gloo",
            ddp_find_unused_parameters=False,
            per_device_train_batch_size=PER_RANK,
            max_steps=settings["steps"],
            learning_rate=settings["learning_rate"],
            max_grad_norm=settings["max_gradient_norm"],
            train_sampling_strategy="sequential" if way == "grouped" else way,
            seed=1,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=records,  # type: ignore[arg-type]
        data_collator=_padded,
        callbacks=[steps],
    )
    trainer.train()
    counts = torch.tensor([trainer.tokens, trainer.places])
    dist.all_reduce(counts)
    if rank == 0:
        tokens, places = counts.tolist()
        found = {"tokens": tokens, "places": places, "seconds": steps.seconds}
        out.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
