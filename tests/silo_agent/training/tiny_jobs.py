"""Jobs on the tiny model, shared by the tests of training."""

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil

from data_contracts.protocol.records.round_plan import TrainingRecipe
from silo_agent.training.job import TrainingJob
from tests.tiny_model import make_tiny_model, tiny_adapter_layout, write_records

STEPS = 8


@dataclass(frozen=True)
class TinySilo:
    """A model and a silo's records in a directory of their own."""

    root: Path
    model_dir: Path
    train_records: Path
    heldout_records: Path

    def job(self, name: str, **changes: Any) -> TrainingJob:
        """A small job that writes into a directory called `name`."""
        fields: dict[str, Any] = {
            "model_dir": self.model_dir,
            "layout": tiny_adapter_layout(),
            "recipe": tiny_recipe(),
            "round": 1,
            "train_records": self.train_records,
            "heldout_records": self.heldout_records,
            "output_dir": self.root / name,
            "zero_stage": 2,
            "ranks": 2,
        }
        return TrainingJob(**{**fields, **changes})


def make_tiny_silo(root: Path) -> TinySilo:
    """Model, 30 training records and 7 held-out ones (an odd number for two ranks)."""
    return TinySilo(
        root=root,
        model_dir=make_tiny_model(root / "model"),
        train_records=write_records(root / "train.jsonl", 30),
        heldout_records=write_records(root / "heldout.jsonl", 7, seed=1000),
    )


def tiny_recipe(local_steps: int = STEPS, sequences_per_step: int = 4) -> TrainingRecipe:
    """Short sequences, a high learning rate, gradient clipping that bites."""
    return TrainingRecipe(
        local_steps=local_steps,
        sequences_per_step=sequences_per_step,
        sequence_length=96,
        learning_rate=Decimal("0.005"),
        warmup_steps=2,
        weight_decay=Decimal("0.01"),
        max_gradient_norm=Decimal("0.5"),
        seed=3,
    )


def job_processes(agent: psutil.Process) -> list[psutil.Process]:
    """torchrun, then the ranks that it has started, of the one training below `agent`."""
    torchrun = [child for child in agent.children() if "torch.distributed.run" in _command(child)]
    ranks = [rank for launcher in torchrun for rank in launcher.children()]
    return torchrun + [rank for rank in ranks if "torch.distributed.run" not in _command(rank)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
