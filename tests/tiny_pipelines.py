"""A random Stable Diffusion, small enough for every test: no pretrained weights.

It is the same, byte for byte, for the same seed. Pictures are 16 pixels wide and latents 8; the
text encoder has the tokenizer's few words and 24 places.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

SIDE, LATENT_SIDE, CHANNELS, PLACES, TIMESTEPS = 16, 8, 4, 24, 1000
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220)}
_WORDS = ("a", "picture", "of", "in", "the", "square", "number", *COLOURS)


def make_tiny_pipeline(directory: Path, seed: int = 0, **scheduler: Any) -> Path:
    """Write a pipeline folder and return it; `scheduler` changes its schedule."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDPMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    directory.mkdir(parents=True, exist_ok=True)
    words = _write_tokenizer(directory / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=words,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=PLACES,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )
    settings: dict[str, Any] = {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "num_train_timesteps": TIMESTEPS,
        "clip_sample": False,
        "steps_offset": 1,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=LATENT_SIDE,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            layers_per_block=1,
            block_out_channels=(8, 16),
            norm_num_groups=4,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=4,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
            up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
            block_out_channels=(8, 16),
            norm_num_groups=4,
            latent_channels=CHANNELS,
            sample_size=SIDE,
        )
        encoder = CLIPTextModel(text)
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=CLIPTokenizer.from_pretrained(directory / "tokenizer"),
        unet=unet,
        scheduler=DDPMScheduler(**(settings | scheduler)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(directory)
    return directory


def coloured_picture(number: int) -> tuple[bytes, str]:
    """A PNG of a square in one colour on noise of its own, and its caption."""
    import io

    from PIL import Image

    name = list(COLOURS)[number % len(COLOURS)]
    rng = np.random.default_rng(number)
    pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    pixels[4:20, 4:20] = COLOURS[name]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue(), f"a picture of the {name} square number {number}"


def write_captioned(records: Path, count: int, first: int = 0) -> Path:
    """Write records of the form image-text, their pictures beside them, and return `records`."""
    from hashlib import sha256

    folder = records.parent / f"{records.stem}-pictures"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(first, first + count):
        data, caption = coloured_picture(number)
        path = folder / f"{number:04}.png"
        path.write_bytes(data)
        line = {"image": str(path), "sha256": sha256(data).hexdigest(), "answer": caption}
        lines.append(json.dumps(line) + "\n")
    records.write_text("".join(lines))
    return records


def _write_tokenizer(directory: Path) -> int:
    """Byte pairs without merges but for the words of the captions; returns how many tokens."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = _pairs()
    (directory / "vocab.json").write_text(json.dumps(vocabulary))
    (directory / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{m}\n" for m in merges))
    told = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": PLACES,
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(told))
    return len(vocabulary)


def _pairs() -> tuple[dict[str, int], list[str]]:
    """All bytes, alone and at the end of a word, and the words; merges from left to right."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[str] = []
    for word in _WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merges.append(f"{parts[0]} {parts[1]}")
            parts[:2] = [parts[0] + parts[1]]
            tokens.append(parts[0])
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: n for n, token in enumerate(dict.fromkeys(tokens))}, list(dict.fromkeys(merges))
