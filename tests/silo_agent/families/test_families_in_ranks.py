"""Every family in real DeepSpeed ranks, against the same training as a plain loop in PyTorch.

The jobs of one number of ranks share a launch.
"""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_contracts.adapters.adapter_format import check_adapter
from data_contracts.adapters.starting_adapter import tensors_of
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import FamilyTask, ModelFamily
from infra.base_model.linear_modules import linear_modules
from silo_agent.training.job import TrainingJob
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.ranks.base_model import load_tokenizer
from silo_agent.training.ranks.families.registry import family_of
from silo_agent.training.ranks.lora_model import (
    adapter_parameters,
    load_lora_model,
    set_adapter,
    trained_parameters,
)
from silo_agent.training.ranks.packed_records import packed, packing_rule, shard_cache, shards_of
from silo_agent.training.ranks.packed_sequence import answer_tokens
from silo_agent.training.ranks.starting_tensors import starting_tensors
from tests.silo_agent.training.shared_ranks import KEEP_SECONDS, finished, train_in_shared_ranks
from tests.silo_agent.training.tiny_jobs import tiny_recipe
from tests.tiny_encoders import (
    CLASSES,
    make_tiny_bert,
    make_tiny_clip,
    write_classified,
    write_pictures,
    write_texts,
)

pytestmark = [pytest.mark.long, pytest.mark.stack]

CPU = torch.device("cpu")
TASKS: dict[ModelFamily, FamilyTask] = {
    "masked-lm": FamilyTask(family="masked-lm"),
    "sequence-classification": FamilyTask(family="sequence-classification", classes=CLASSES),
    "dual-encoder": FamilyTask(family="dual-encoder"),
}
RECIPE = {
    "local_steps": 6,
    "sequences_per_step": 8,
    "sequence_length": 32,
    "learning_rate": Decimal("0.01"),
}
SHAPES: dict[str, dict[str, Any]] = {
    "one": {"zero_stage": 1, "ranks": 2, "micro_batch": 1},
    "two": {"zero_stage": 2, "ranks": 2, "micro_batch": 4},
    "three": {"zero_stage": 3, "ranks": 2, "micro_batch": 3},
    "saved": {"zero_stage": 2, "ranks": 2, "gradient_checkpointing": True},
    "three-saved": {"zero_stage": 3, "ranks": 2, "gradient_checkpointing": True},
    "used": {"zero_stage": 2, "ranks": 2, "micro_batch": 4},
}
TOLERANCE = 2e-4
"""Of factors that are about 0.1 after six steps of AdamW, which makes signs of what rounding is."""


def material(root: Path, family: ModelFamily) -> tuple[Path, Path, Path]:
    """A model of the family, training and held-out records."""
    if family == "dual-encoder":
        sets = (write_pictures(root / "train", 60), write_pictures(root / "heldout", 40, seed=1))
        return make_tiny_clip(root / "model"), *sets
    write = write_classified if family == "sequence-classification" else write_texts
    sets = (write(root / "train.jsonl", 60), write(root / "heldout.jsonl", 20, seed=1))
    return make_tiny_bert(root / "model"), *sets


def family_job(root: Path, family: ModelFamily, **changes: Any) -> TrainingJob:
    """A small job of a family; what is in `root` of it before stays as it is."""
    task = TASKS[family]
    model = root / "model"
    found = linear_modules(model, task)
    fields: dict[str, Any] = {
        "model_dir": model,
        "layout": AdapterLayout(rank=4, alpha=8, seed=3, targets=found.modules + found.head),
        "recipe": tiny_recipe().model_copy(update=RECIPE),
        "round": 1,
        "task": task,
        "measure_base": True,
    }
    return TrainingJob(**{**fields, **changes})


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, TrainingJob]]]:
    """Jobs that are done, by family and by the name of their shape."""
    made: dict[str, dict[str, TrainingJob]] = {}
    root = tmp_path_factory.mktemp("families in ranks")
    for family in TASKS:
        own = root / family
        own.mkdir()
        _, train, heldout = material(own, family)
        files = {"train_records": train, "heldout_records": heldout}
        made[family] = {
            name: family_job(own, family, **files, output_dir=own / name, **shape)
            for name, shape in SHAPES.items()
        }
    ranks = ResidentRanks(root, KEEP_SECONDS)
    try:
        error = train_in_shared_ranks([job for own in made.values() for job in own.values()], ranks)
        assert error is None, error
    finally:
        ranks.end()
    yield made


def trained_plainly(job: TrainingJob) -> tuple[dict[str, np.ndarray], float]:
    """The adapter, and the held-out loss, of one process that takes a step's records at once."""
    family = family_of(job.task)
    cache = shard_cache(job, family, job.output_dir / "shards", load_tokenizer, lambda _: None)
    rule = packing_rule(job, family, load_tokenizer, together=True)
    records = packed(job, shards_of(job, cache), rule)
    model = load_lora_model(job.model_dir, job.layout, "cpu", task=job.task)
    set_adapter(model, starting_tensors(job.layout, None))
    model.eval()
    recipe, trained = job.recipe, list(trained_parameters(model).values())
    rate = float(recipe.learning_rate)
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=float(recipe.weight_decay))
    for step in range(recipe.local_steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / (recipe.warmup_steps + 1))
        size = recipe.sequences_per_step
        sequences = records.train[step * size : (step + 1) * size]
        loss = family.batch_loss(model, sequences, CPU) / answer_tokens(sequences)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trained, float(recipe.max_gradient_norm))
        optimizer.step()
    with torch.no_grad():
        measured = torch.cat([family.measured(model, each, CPU) for each in records.heldout])
    counts = [count for each in records.heldout for count in each.record_answer_tokens]
    losses = family.scores(measured).losses
    adapter = {name: p.detach().numpy() for name, p in adapter_parameters(model).items()}
    return adapter, losses.sum().item() / sum(counts)


@pytest.mark.parametrize("family", TASKS)
def test_ranks_train_what_a_plain_loop_trains(
    family: str, jobs: dict[str, dict[str, TrainingJob]]
) -> None:
    expected, loss = trained_plainly(jobs[family]["one"])
    for name, job in jobs[family].items():
        result = finished(job)
        own = tensors_of(check_adapter(result.adapter, job.layout))
        assert own.keys() == expected.keys()
        largest = max(float(np.abs(own[key] - expected[key]).max()) for key in own)
        assert largest < TOLERANCE, (name, largest)
        assert result.local is not None and result.starting is not None
        assert result.local.nats == pytest.approx(loss, abs=1e-4), name
        assert result.local.nats < result.starting.nats
        assert result.local.right is not None and 0 <= result.local.right <= 1
        assert result.base is not None and result.base.nats == result.starting.nats


@pytest.mark.parametrize("family", TASKS)
def test_a_used_engine_trains_the_very_adapter_of_a_new_one(
    family: str, jobs: dict[str, dict[str, TrainingJob]]
) -> None:
    own = jobs[family]
    first, again = (finished(own[name]).adapter.read_bytes() for name in ("two", "used"))
    assert first == again


@pytest.mark.parametrize("family", ["masked-lm", "sequence-classification"])
def test_a_head_is_trained_whole_and_moves(
    family: str, jobs: dict[str, dict[str, TrainingJob]]
) -> None:
    job = jobs[family]["two"]
    assert job.layout.wholes
    own = tensors_of(check_adapter(finished(job).adapter, job.layout))
    start = dict(starting_tensors(job.layout, None))
    for target in job.layout.wholes:
        name = f"base_model.model.{target.module}"
        assert np.abs(own[name] - start[name]).max() > 1e-3, name
