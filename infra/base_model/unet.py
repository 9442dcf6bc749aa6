"""The UNet of a pipeline; only processes that load models import it, and diffusers with it."""

from pathlib import Path
from typing import Any

import torch

from infra.disk.model_parts import parts_of

ADAPTED = ("to_q", "to_k", "to_v", "to_out.0")
"""Attention projections, on which diffusers' own training scripts put LoRA for text to image."""


def empty_unet(folder: str) -> Any:
    """The UNet on the meta device, by its configuration."""
    from diffusers import UNet2DConditionModel

    config = UNet2DConditionModel.load_config(parts_of(Path(folder)).trained, local_files_only=True)
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(config)


def is_adapted(model: Any, name: str) -> bool:
    """Whether "all-linear" means this linear module: of a UNet the attention projections alone."""
    is_unet = type(model).__name__ == "UNet2DConditionModel"
    return not is_unet or name.endswith(tuple(f".{end}" for end in ADAPTED))
