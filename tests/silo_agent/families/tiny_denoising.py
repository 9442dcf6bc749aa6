"""A silo with pictures and a random pipeline, and the same training by diffusers' own parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.dataset.forms.record_index import RecordIndex
from data_contracts.dataset.pictures.training_picture import training_picture
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import FamilyTask
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from infra.base_model.linear_modules import linear_modules
from silo_agent.training.job import TrainingJob
from tests.tiny_pipelines import PLACES, SIDE, make_tiny_pipeline, write_captioned

TASK = FamilyTask(family="denoising")
RECIPE = TrainingRecipe(
    local_steps=4,
    sequences_per_step=4,
    sequence_length=PLACES,
    learning_rate=Decimal("0.01"),
    warmup_steps=1,
    weight_decay=Decimal("0.01"),
    max_gradient_norm=Decimal("0.5"),
    seed=3,
)


@dataclass(frozen=True)
class PictureSilo:
    """A pipeline and a silo's records in a directory of their own."""

    root: Path
    model_dir: Path
    train: Path
    heldout: Path
    layout: AdapterLayout

    def job(self, name: str, **changes: Any) -> TrainingJob:
        """A small job that writes into a directory called `name`."""
        fields: dict[str, Any] = {
            "model_dir": self.model_dir,
            "layout": self.layout,
            "recipe": RECIPE,
            "round": 1,
            "train_records": self.train,
            "heldout_records": self.heldout,
            "output_dir": self.root / name,
            "zero_stage": 2,
            "ranks": 2,
            "task": TASK,
        }
        return TrainingJob(**{**fields, **changes})


def make_picture_silo(root: Path) -> PictureSilo:
    """Twelve pictures to train on and five held out (an odd number for two ranks)."""
    root.mkdir(parents=True, exist_ok=True)
    model_dir = make_tiny_pipeline(root / "pipeline")
    return PictureSilo(
        root=root,
        model_dir=model_dir,
        train=write_captioned(root / "train.jsonl", 12),
        heldout=write_captioned(root / "heldout.jsonl", 5, first=100),
        layout=AdapterLayout(
            rank=4, alpha=6, seed=7, targets=linear_modules(model_dir, TASK).modules
        ),
    )


def sequences_of(silo: PictureSilo) -> Any:
    """Those of all steps of the recipe in round 1."""
    from silo_agent.training.ranks.packing import pack_training

    cache, rule = _told(silo)
    count = RECIPE.local_steps * RECIPE.sequences_per_step
    found, _ = pack_training(
        cache.of(silo.train), rule, count=count, seed=RECIPE.seed, round_number=1
    )
    return found


def heldout_of(silo: PictureSilo) -> Any:
    """Those of the held-out records."""
    from silo_agent.training.ranks.packing import pack_heldout

    cache, rule = _told(silo)
    return pack_heldout(cache.of(silo.heldout), rule, limit=64, seed=silo.layout.seed)


def _told(silo: PictureSilo) -> tuple[Any, Any]:
    from silo_agent.training.ranks.base_model import load_tokenizer
    from silo_agent.training.ranks.families.denoising import Denoising
    from silo_agent.training.ranks.families.family import Telling
    from silo_agent.training.ranks.packing import PackingRule
    from silo_agent.training.ranks.shard_cache import ShardCache

    family = Denoising(TASK)
    telling = Telling(silo.model_dir, "2026-01-01", PLACES)
    shown = family.shown(lambda: load_tokenizer(silo.model_dir), silo.model_dir)
    rule = PackingRule(PLACES, together=False, context=PLACES, shown=shown)
    return ShardCache(silo.root / "told", family, telling, load_tokenizer), rule


class OwnParts:
    """The pipeline as diffusers loads it, with an adapter that diffusers itself has put on it."""

    def __init__(self, silo: PictureSilo) -> None:
        from diffusers import DDPMScheduler, StableDiffusionPipeline
        from peft import LoraConfig

        self.pipe: Any = StableDiffusionPipeline.from_pretrained(silo.model_dir)
        self._schedule = DDPMScheduler.from_config(self.pipe.scheduler.config)
        self.pipe.unet.requires_grad_(False)
        config = LoraConfig(
            r=silo.layout.rank,
            lora_alpha=silo.layout.alpha,
            target_modules=[target.module for target in silo.layout.targets],
        )
        self.pipe.unet.add_adapter(config)
        self.parameters = {
            f"base_model.model.{name.replace('.default.', '.')}": parameter
            for name, parameter in self.pipe.unet.named_parameters()
            if ".lora_" in name
        }

    def put(self, silo: PictureSilo, adapter: Path | None) -> None:
        """An adapter file, or the start of all."""
        import torch

        from silo_agent.training.ranks.starting_tensors import starting_tensors

        with torch.no_grad():
            for name, array in starting_tensors(silo.layout, adapter):
                self.parameters[name].copy_(torch.from_numpy(np.array(array)))

    def errors(self, sequences: Sequence[Any]) -> Any:
        """Of each picture the mean squared error, over its timesteps."""
        import torch

        found = []
        for sequence in sequences:
            record = RecordIndex(sequence.origin.records).record(sequence.origin.places[0])
            pixels = training_picture(record.path, record.sha256, SIDE).astype(np.float32)
            tensor = torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)[None]
            states, _ = self.pipe.encode_prompt(record.caption, "cpu", 1, False)
            with torch.no_grad():
                latent = self.pipe.vae.encode(tensor).latent_dist.mean
            latent = latent * self.pipe.vae.config.scaling_factor
            losses = []
            for timestep, drawn in zip(sequence.draws.timesteps, sequence.draws.noise, strict=True):
                noise, at = torch.from_numpy(drawn)[None], torch.tensor([timestep])
                noisy = self._schedule.add_noise(latent, noise, at)
                predicted = self.pipe.unet(noisy, at, states.detach()).sample
                losses.append(torch.nn.functional.mse_loss(predicted, noise))
            found.append(torch.stack(losses).mean())
        return torch.stack(found)

    def train(self, sequences: Sequence[Any]) -> None:
        """The recipe, a step at a time."""
        import torch

        rate, size = float(RECIPE.learning_rate), RECIPE.sequences_per_step
        decay = float(RECIPE.weight_decay)
        trained = list(self.parameters.values())
        optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=decay)
        for step in range(RECIPE.local_steps):
            optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / (RECIPE.warmup_steps + 1))
            optimizer.zero_grad()
            self.errors(sequences[step * size : (step + 1) * size]).mean().backward()
            torch.nn.utils.clip_grad_norm_(trained, float(RECIPE.max_gradient_norm))
            optimizer.step()
