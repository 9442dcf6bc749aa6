"""The models of a pipeline: the UNet, which adapters sit on, and what is frozen beside it.

At ZeRO-3 each rank loads the UNet whole before DeepSpeed partitions it: diffusers does not load in
parts as transformers does.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from data_contracts.errors import SiloOperatorError
from infra.base_model.diffusion_extra import require_diffusers
from infra.disk.model_parts import parts_of
from silo_agent.training.ranks.base_model import load_whole


@dataclass(frozen=True)
class Beside:
    """Frozen, in float32: of the autoencoder what encodes, the text encoder, and how much of a
    latent is left at each timestep (`alphas_cumprod`, float32, one a timestep)."""

    vae: Any
    text_encoder: Any
    alphas_cumprod: torch.Tensor

    @torch.no_grad()
    def latents(self, pictures: torch.Tensor) -> torch.Tensor:
        """Of pictures, uint8 (pictures x side x side x 3): float32 (pictures x channels x latent
        side x latent side), scaled as the UNet is given them.

        The autoencoder gives a distribution; its mode is taken, which is its mean. So a picture is
        the same latent in every round and on every rank, and no second draw adds to the loss.
        """
        pixels = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
        mode = self.vae.encode(pixels).latent_dist.mode()
        latents: torch.Tensor = mode * self.vae.config.scaling_factor
        return latents

    @torch.no_grad()
    def states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Of padded captions (captions x tokens): float32 (captions x tokens x width); padding is
        read too, as Stable Diffusion does, unless the encoder says otherwise."""
        is_masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        states: torch.Tensor = self.text_encoder(ids, attention_mask=mask if is_masked else None)[0]
        return states

    def noised(
        self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """Latents with noise, as much as at these timesteps (Ho et al. 2020, equation 4)."""
        left = self.alphas_cumprod[timesteps].reshape(-1, 1, 1, 1)
        return left.sqrt() * latents + (1 - left).sqrt() * noise


def load_beside(model_dir: Path, device: torch.device) -> Beside:
    """What is beside the UNet; raises SiloOperatorError where something of it is missing."""
    require_diffusers()
    from diffusers import AutoencoderKL, DDPMScheduler
    from transformers import CLIPTextModel

    vae = load_whole(AutoencoderKL, model_dir / "vae", torch_dtype=torch.float32)
    # Nothing is decoded in training.
    vae.decoder = vae.post_quant_conv = None
    encoder = load_whole(CLIPTextModel, parts_of(model_dir).text, dtype=torch.float32)
    # Whatever scheduler the pipeline samples with, noise is added by the schedule that it states.
    config = DDPMScheduler.load_config(model_dir / "scheduler", local_files_only=True)
    schedule = DDPMScheduler.from_config(config)
    for model in (vae, encoder):
        model.requires_grad_(False).eval().to(device)
    return Beside(vae, encoder, schedule.alphas_cumprod.float().to(device))


def load_unet(model_dir: Path, **options: Any) -> Any:
    """The UNet; raises SiloOperatorError where it is not whole, or `options` would quantise it."""
    require_diffusers()
    if "quantization_config" in options:
        raise SiloOperatorError(
            "base_weights in silo-agent.toml",
            expected='"full", for the family denoising',
            found="quantised ones",
            action='set base_weights = "full"',
        )
    from diffusers import UNet2DConditionModel

    dtype = options.pop("dtype")
    return load_whole(
        UNet2DConditionModel, parts_of(model_dir).trained, torch_dtype=dtype, **options
    )


def recompute_unet(unet: Any, *, partitioned: bool) -> None:
    """As `base_model.recompute_activations`, for a UNet."""

    def recomputed(module: Any, *inputs: Any) -> Any:
        return checkpoint(module.__call__, *inputs, use_reentrant=partitioned)

    if partitioned:
        # The older way needs an input that a gradient is asked for, and the first layer is frozen.
        unet.conv_in.register_forward_hook(lambda _module, _inputs, found: found.requires_grad_())
    unet.enable_gradient_checkpointing(recomputed)
