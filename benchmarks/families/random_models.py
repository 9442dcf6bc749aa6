"""Small random models of the two families of which no package has real weights.

They are large enough that LoRA on them can learn which picture has which words, or which colours
emoji have. Their vocabulary is that of the captions.
"""

import json
from collections.abc import Sequence
from pathlib import Path

SIDE, PATCH, CONTEXT = 32, 8, 24
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def write_clip(folder: Path, captions: Sequence[str]) -> Path:
    """A CLIP of four layers a side with random weights, always the same."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    size = write_tokenizer(folder, captions)
    sizes = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": 64,
        # Drawn as usual, all pictures are nearly one to a model that nobody has trained.
        "initializer_factor": 4.0,
    }
    control = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = CLIPConfig(
        text_config={
            **sizes,
            **control,
            "vocab_size": size,
            "max_position_embeddings": CONTEXT,
        },
        vision_config={**sizes, "image_size": SIDE, "patch_size": PATCH},
        projection_dim=64,
        initializer_factor=4.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    told = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return folder


def write_tokenizer(folder: Path, captions: Sequence[str]) -> int:
    """A tokenizer of the captions' words and of letters; returns how many tokens it has."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = sorted({word for caption in captions for word in caption.lower().split()})
    letters = [p + c for c in "abcdefghijklmnopqrstuvwxyz0123456789-'.,:()&" for p in ("", "##")]
    vocabulary = list(dict.fromkeys([*SPECIAL, *letters, *words]))
    numbers = {token: number for number, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(vocab=numbers, unk_token=SPECIAL[1]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])],
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = ("pad_token", "unk_token", "cls_token", "sep_token")
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        **dict(zip(names, SPECIAL, strict=True)),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return len(vocabulary)


def write_pipeline(folder: Path, captions: Sequence[str]) -> Path:
    """A Stable Diffusion of small parts with random weights, always the same: pictures of 32
    pixels, latents of 16."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDPMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

    words = write_tokenizer(folder / "tokenizer", captions)
    text = CLIPTextConfig(
        vocab_size=words,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = StableDiffusionPipeline(
            vae=AutoencoderKL(
                down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
                up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
                block_out_channels=(16, 32),
                norm_num_groups=8,
                latent_channels=4,
                sample_size=SIDE,
            ),
            text_encoder=CLIPTextModel(text),
            tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
            unet=UNet2DConditionModel(
                sample_size=SIDE // 2,
                layers_per_block=1,
                block_out_channels=(32, 64),
                norm_num_groups=8,
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                cross_attention_dim=64,
                attention_head_dim=8,
            ),
            scheduler=DDPMScheduler(
                beta_schedule="scaled_linear",
                beta_start=0.00085,
                beta_end=0.012,
                clip_sample=False,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    return folder
