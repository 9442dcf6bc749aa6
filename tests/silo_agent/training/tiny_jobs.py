"""Jobs on the tiny model, shared by the tests of training."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from data_contracts.adapters.starting_adapter import InitialAdapter, tensors_of
from data_contracts.protocol.records.adapter_layout import AdapterLayout, AdapterTarget
from data_contracts.protocol.records.model_family import CAUSAL_TASK
from data_contracts.protocol.records.round_plan import ANY_DAY
from data_contracts.protocol.records.training_recipe import TrainedFactors, TrainingRecipe
from silo_agent.training.adapter_file import write_adapter
from silo_agent.training.job import TrainingJob
from silo_agent.training.loss import RecordSums
from silo_agent.training.processes.machine_launch import FORKED
from silo_agent.training.silo_only import SiloOnlyBaseline
from tests.tiny_model import VOCABULARY, make_tiny_model, tiny_adapter_layout, write_records

STEPS, RECIPE_STEPS, SECOND_STEPS = 8, 6, 24
RECIPE_LAYOUT = tiny_adapter_layout(use_rslora=True)
RESIDUAL_LAYOUT = tiny_adapter_layout(rank=3).model_copy(update={"alpha": 3})

Jobs = dict[str, TrainingJob]
"""By the names of their output directories."""


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


def conversations(model_dir: Path) -> Any:
    """What the ranks make of records with the tokenizer in a folder."""
    from silo_agent.training.ranks.base_model import load_tokenizer
    from silo_agent.training.ranks.conversation import Conversations

    return Conversations(load_tokenizer(model_dir), ANY_DAY)


def shard_of(model_dir: Path, records: Path, directory: Path | None = None, room: int = 96) -> Any:
    """The tokens of records, kept beside them as ranks keep them."""
    from silo_agent.training.ranks.base_model import load_tokenizer
    from silo_agent.training.ranks.families.causal_lm import CausalLm
    from silo_agent.training.ranks.families.family import Telling
    from silo_agent.training.ranks.shard_cache import ShardCache

    kept = directory or records.parent / "shards"
    telling = Telling(model_dir, ANY_DAY, room)
    return ShardCache(kept, CausalLm(CAUSAL_TASK), telling, load_tokenizer).of(records)


def one_by_one(model_dir: Path, records: Path, length: int) -> RecordSums:
    """(nats, tokens) of every record as transformers states its loss, cut as packing cuts."""
    import torch
    from transformers import AutoModelForCausalLM

    from data_contracts.dataset.forms.lines import form_of_file, read_lines

    model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    made = conversations(model_dir)
    found = []
    for (prompt, answer), _ in read_lines(records, form_of_file(records)):
        whole = made.of(prompt, answer)
        ids, kept = torch.tensor([whole.token_ids[:length]]), torch.tensor([whole.labels[:length]])
        tokens = int((kept != -100).sum())
        if tokens:
            with torch.no_grad():
                found.append((model(ids, labels=kept).loss.item() * tokens, tokens))
    return tuple(found)


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


def first_round(silo: TinySilo, name: str, **changes: Any) -> TrainingJob:
    """From the seed, with checkpoints, every loss and the baseline asked for."""
    baseline = SiloOnlyBaseline(enabled=True)
    options = {"measure_base": True, "silo_only": baseline, "checkpoint_every_steps": 2}
    return silo.job(name, **{**options, **changes})


def second_round(silo: TinySilo, starting: Path) -> TrainingJob:
    """As the first, from `starting`, so that the baseline is another adapter.

    Long enough that a deadline which passes when the baseline begins is noticed before its end.
    """
    recipe = tiny_recipe(SECOND_STEPS)
    return first_round(silo, "second-round", round=2, recipe=recipe, starting_adapter=starting)


def twice(silo: TinySilo, stage: int, starting: Path) -> tuple[TrainingJob, ...]:
    """A job at a ZeRO stage, another from `starting` on the same engine, and the first again."""
    name = f"zero-{stage}"
    return (
        first_round(silo, name, zero_stage=stage),
        silo.job(f"{name}-between", zero_stage=stage, round=2, starting_adapter=starting),
        first_round(silo, f"{name}-again", zero_stage=stage),
    )


def saving_jobs(silo: TinySilo) -> tuple[TrainingJob, ...]:
    """The jobs of `twice`, with less memory: activations computed again, or moved elsewhere."""
    saves: dict[str, dict[str, Any]] = {
        "zero-2-checkpointing": {"zero_stage": 2, "gradient_checkpointing": True},
        "zero-3-checkpointing": {"zero_stage": 3, "gradient_checkpointing": True},
        "zero-3-offload": {"zero_stage": 3, "offload": "cpu"},
    }
    return tuple(silo.job(name, **changes) for name, changes in saves.items())


def bfloat16_jobs(silo: TinySilo) -> tuple[TrainingJob, ...]:
    """The jobs of `twice` in bfloat16, which measure nothing; the second one again."""
    options = {"precision": "bfloat16", "measure_starting": False, "measure_local": False}
    return tuple(
        silo.job(f"zero-{stage}-bfloat16{again}", zero_stage=stage, **options)
        for stage, again in ((1, ""), (2, ""), (3, ""), (2, "-again"))
    )


def shortened_job_of_two_ranks(silo: TinySilo) -> TrainingJob:
    """As the second of those below, in ranks that have to end after the same step."""
    job = shortened_jobs(silo)[1]
    return job.model_copy(update={"ranks": 2, "output_dir": silo.root / "half-by-two"})


def shortened_jobs(silo: TinySilo) -> tuple[TrainingJob, ...]:
    """Half of the steps: as many as there are; of all, because the time is over; and in two goes.

    Those share a directory: what the first of them has done is not enough for the second. Then all
    the steps, with no time for a baseline.
    """
    start = drawn_adapter(silo.root / "start-of-half.safetensors", tiny_adapter_layout(), 0.1)
    options = {"ranks": 1, "round": 2, "starting_adapter": start, "checkpoint_every_steps": 2}
    over = {
        "least_steps": STEPS // 2,
        "end_by": datetime(2020, 1, 1, tzinfo=UTC),
        "silo_only": SiloOnlyBaseline(enabled=True),
    }
    return (
        silo.job("half", **options, recipe=tiny_recipe(STEPS // 2)),
        silo.job("half-by-time", **options, **over),
        silo.job("half-in-two-goes", **options, **{**over, "least_steps": 2}),
        silo.job("half-in-two-goes", **options, **over),
        silo.job("no-time-for-a-baseline", **options, **{**over, "least_steps": None}),
    )


def absent_module_job(silo: TinySilo) -> TrainingJob:
    """A failure that a rank reports."""
    target = AdapterTarget(module="model.layers.0.self_attn.absent", in_features=32, out_features=8)
    layout = AdapterLayout(rank=4, alpha=8, seed=1, targets=(target,))
    return silo.job("absent-module", layout=layout, ranks=1)


def mixing_model(root: Path, tokenizer: Path) -> Path:
    """A random OPT, which counts positions through a whole sequence, with a tokenizer of 512."""
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    sizes = {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2}
    config = OPTConfig(
        **sizes,
        vocab_size=VOCABULARY,
        num_attention_heads=4,
        max_position_embeddings=256,
        init_std=0.2,
        dropout=0.0,
    )
    root.mkdir()
    for path in tokenizer.iterdir():
        if path.suffix != ".safetensors" and path.name != "config.json":
            shutil.copy(path, root)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        OPTForCausalLM(config).save_pretrained(root)
    return root


def mixing_layout() -> AdapterLayout:
    """Two modules of that model."""
    names = [f"model.decoder.layers.{layer}.self_attn.v_proj" for layer in range(2)]
    targets = [AdapterTarget(module=name, in_features=32, out_features=32) for name in names]
    return AdapterLayout(rank=4, alpha=8, seed=1, targets=tuple(targets))


def mixing_job(silo: TinySilo) -> TrainingJob:
    """A model that mixes conversations of a sequence, at the stage where all ranks go together."""
    model = mixing_model(silo.root / "mixing-model", silo.model_dir)
    changes: dict[str, Any] = {"model_dir": model, "layout": mixing_layout(), "zero_stage": 3}
    return silo.job("mixing", **changes, measure_base=True)


def damaged_job(silo: TinySilo) -> TrainingJob:
    """A failure that no code foresees."""
    model = make_tiny_model(silo.root / "damaged-model")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return silo.job("damaged", model_dir=model)


def drawn_adapter(path: Path, layout: AdapterLayout, size: float) -> Path:
    """An adapter with A of the seed and random B."""
    rng = np.random.default_rng(11)
    tensors = tensors_of(InitialAdapter(layout))
    for name, array in tensors.items():
        if ".lora_B." in name:
            array[:] = size * rng.standard_normal(array.shape)
    write_adapter(path, layout, tensors)
    return path


def recipe_job(
    silo: TinySilo,
    name: str,
    factors: TrainedFactors,
    *,
    with_baseline: bool = False,
    **changes: Any,
) -> TrainingJob:
    """A job with every option at once: rank-stabilised, one factor, proximal, with a residual."""
    options = {"trained_factors": factors, "proximal_mu": Decimal("0.8")}
    start, residual = silo.root / "start.safetensors", silo.root / "residual.safetensors"
    fields: dict[str, Any] = {
        "layout": RECIPE_LAYOUT,
        "recipe": tiny_recipe(RECIPE_STEPS).model_copy(update=options),
        "round": 2,
        "starting_adapter": drawn_adapter(start, RECIPE_LAYOUT, 0.1),
        "starting_residual": drawn_adapter(residual, RESIDUAL_LAYOUT, 0.05),
        "residual_layout": RESIDUAL_LAYOUT,
        "heldout_sequences": 3,
        "measure_local": False,
        "measure_base": with_baseline,
        "silo_only": SiloOnlyBaseline(enabled=with_baseline),
    }
    return silo.job(name, **{**fields, **changes})


def cored_twice(silo: TinySilo, stage: int, ranks: int) -> tuple[TrainingJob, ...]:
    """A job that trains cores, another from the seed on the same engine, and the first again."""
    name = f"cored-zero-{stage}"
    held: dict[str, Any] = {"zero_stage": stage, "ranks": ranks}
    return (
        recipe_job(silo, name, "core", **held),
        recipe_job(silo, f"{name}-between", "core", **held, starting_adapter=None),
        recipe_job(silo, f"{name}-again", "core", **held),
    )


def job_processes(agent: psutil.Process) -> list[psutil.Process]:
    """The launcher, then the ranks that it has started, of the one training below `agent`."""
    launchers = [child for child in agent.children() if FORKED in _command(child)]
    return launchers + [rank for launcher in launchers for rank in launcher.children()]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
