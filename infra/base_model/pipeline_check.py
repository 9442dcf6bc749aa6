"""A pipeline of diffusers that can be trained on: what is in its folder, and what its parts say.

It is Stable Diffusion of one text encoder: a UNet that is told a timestep and a text, and predicts
the noise in the latents of a variational autoencoder. By configurations and headers alone; whatever
is of another kind is refused by its name, because training it as this one would train something
else without a word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.errors import SiloOperatorError
from infra.base_model.diffusion_extra import require_diffusers
from infra.base_model.tokenizer_files import json_object
from infra.base_model.weight_files import DIFFUSERS, TRANSFORMERS, Weights, read_folder
from infra.base_model.weights_check import (
    require_fitting_tokenizer,
    require_full_precision,
    require_full_tensors,
    require_layers,
)
from infra.disk.model_parts import CONFIG_FILE, PIPELINE_FILE, parts_of

PIPELINE = "StableDiffusionPipeline"
_CLASSES: Mapping[str, tuple[str, ...]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": (),
    "scheduler": (),
}
"""Parts that have to be there, and what they may be. Of a scheduler its schedule decides, of a
tokenizer whether its ids fit the text encoder."""

_OTHER_CONDITIONS = (
    *("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim"),
    *("encoder_hid_dim_type", "time_cond_proj_dim"),
)
_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
SCHEDULER_FILE = "scheduler_config.json"
_ACTION = "use a pipeline of Stable Diffusion 1.x, or 2.x of those that predict the noise, whole"


@dataclass(frozen=True)
class PipelineShape:
    """Latents are `channels` x `latent_side` x `latent_side`, of pictures `side` pixels wide and
    high; captions are told in `tokens`, and noise in so many `timesteps`."""

    channels: int
    latent_side: int
    side: int
    tokens: int
    timesteps: int


def require_sound_pipeline(model_dir: Path) -> Weights:
    """Tensors of the UNet; raises SiloOperatorError for what cannot be trained, by its name."""
    require_diffusers()
    pipeline_shape(model_dir)
    for name, library in (("vae", DIFFUSERS), ("text_encoder", TRANSFORMERS), ("unet", DIFFUSERS)):
        folder = model_dir / name
        config = json_object(folder / CONFIG_FILE)
        require_full_precision(folder, config)
        weights = read_folder(folder, library)
        require_full_tensors(folder, weights)
        if name == "text_encoder":
            require_layers(folder, config, weights)
            require_fitting_tokenizer(parts_of(model_dir).tokenizer, weights)
    return weights


def pipeline_shape(model_dir: Path) -> PipelineShape:
    """What the parts of a pipeline say of it; raises SiloOperatorError for one of another kind."""
    _require_parts(model_dir)
    unet, vae, text = (
        json_object(model_dir / part / CONFIG_FILE) for part in ("unet", "vae", "text_encoder")
    )
    _require_noise_by_text(model_dir, unet)
    channels = _count(model_dir, vae, "latent_channels", "vae")
    for name in ("in_channels", "out_channels"):
        if (found := unet.get(name, channels)) != channels:
            expected = f"{channels} {name} of its unet, as its vae has latent_channels"
            raise _unusable(model_dir, expected, f"{found}")
    width = _count(model_dir, text, "hidden_size", "text_encoder")
    if (found := unet.get("cross_attention_dim")) != width:
        expected = f"a unet with cross_attention_dim {width}, the width of its text encoder"
        raise _unusable(model_dir, expected, f"{found}")
    latent_side = _count(model_dir, unet, "sample_size", "unet")
    blocks = vae.get("block_out_channels")
    if not isinstance(blocks, list) or not blocks:
        raise _unusable(model_dir, "block_out_channels of its vae", "none")
    return PipelineShape(
        channels=channels,
        latent_side=latent_side,
        side=latent_side * 2 ** (len(blocks) - 1),
        tokens=_tokens(model_dir, text),
        timesteps=_timesteps(model_dir),
    )


def _require_parts(model_dir: Path) -> None:
    index = json_object(model_dir / PIPELINE_FILE)
    found = index.get("_class_name")
    if found != PIPELINE:
        raise _unusable(model_dir, f"{PIPELINE} in {PIPELINE_FILE}", str(found)[:100])
    for name, classes in _CLASSES.items():
        named = index.get(name)
        kind = named[1] if isinstance(named, list) and len(named) == 2 else None
        if kind is None or (classes and kind not in classes):
            told = "none" if kind is None else str(kind)[:100]
            raise _unusable(model_dir, f"a {name}, {' or '.join(classes) or 'of any class'}", told)
        if name != "tokenizer":
            file = model_dir / name / (SCHEDULER_FILE if name == "scheduler" else CONFIG_FILE)
            if not file.is_file():
                raise _unusable(model_dir, f"{name}/{file.name}", "none")
    if not parts_of(model_dir).tokenizer.is_dir():
        raise _unusable(model_dir, "a folder tokenizer with its files", "none")


def _require_noise_by_text(model_dir: Path, unet: dict[str, Any]) -> None:
    for name in _OTHER_CONDITIONS:
        if unet.get(name) is not None:
            found = f"{name} {str(unet[name])[:100]}"
            raise _unusable(model_dir, "a unet that is told a timestep and a text alone", found)
    schedule = json_object(model_dir / "scheduler" / SCHEDULER_FILE)
    if (found := schedule.get("prediction_type", "epsilon")) != "epsilon":
        expected = "a scheduler of a model that predicts the noise (prediction_type epsilon)"
        raise _unusable(model_dir, expected, str(found)[:100])
    is_listed = isinstance(schedule.get("trained_betas"), list)
    if not is_listed and schedule.get("beta_schedule") not in _SCHEDULES:
        expected = f"a scheduler with a beta_schedule of {', '.join(_SCHEDULES)}, or trained_betas"
        found = f"{schedule.get('_class_name')} with {schedule.get('beta_schedule')}"
        raise _unusable(model_dir, expected, found[:200])


def _tokens(model_dir: Path, text: dict[str, Any]) -> int:
    """As many as the pipeline pads a caption to: its tokenizer's length, if the encoder has it."""
    places = _count(model_dir, text, "max_position_embeddings", "text_encoder")
    told = json_object(parts_of(model_dir).tokenizer / "tokenizer_config.json")
    length = told.get("model_max_length")
    return min(length, places) if type(length) is int and length > 1 else places


def _timesteps(model_dir: Path) -> int:
    schedule = json_object(model_dir / "scheduler" / SCHEDULER_FILE)
    count = _count(model_dir, schedule, "num_train_timesteps", "scheduler")
    betas = schedule.get("trained_betas")
    if isinstance(betas, list) and len(betas) != count:
        raise _unusable(model_dir, f"{count} trained_betas of its scheduler", f"{len(betas)}")
    return count


def _count(model_dir: Path, config: dict[str, Any], name: str, part: str) -> int:
    found = config.get(name)
    if type(found) is not int or found < 1:
        raise _unusable(model_dir, f"{name} of its {part}, a number", str(found)[:100])
    return found


def _unusable(model_dir: Path, expected: str, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"pipeline {model_dir}", expected=expected, found=found, action=_ACTION
    )
