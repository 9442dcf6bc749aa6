"""Folders of base models written by hand, so that a test can leave something out; no torch."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.tiny_model import CHAT_TEMPLATE, HIDDEN, INTERMEDIATE, LAYERS

WORDS = ("<|im_start|>", "<|im_end|>", *"abcdefghijklmnopqrstuvwxyz")
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": len(WORDS),
    "tie_word_embeddings": True,
    "eos_token_id": 1,
}


def tensors_of_llama(layers: int = LAYERS) -> dict[str, np.ndarray]:
    """Zeros under the names of a Llama whose head is its embeddings."""
    key_value = HIDDEN // 2
    shapes: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj": (HIDDEN, HIDDEN),
        "self_attn.k_proj": (key_value, HIDDEN),
        "self_attn.v_proj": (key_value, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN),
        "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
        "mlp.up_proj": (INTERMEDIATE, HIDDEN),
        "mlp.down_proj": (HIDDEN, INTERMEDIATE),
        "input_layernorm": (HIDDEN,),
        "post_attention_layernorm": (HIDDEN,),
    }
    named = {
        f"model.layers.{layer}.{name}.weight": shape
        for layer in range(layers)
        for name, shape in shapes.items()
    }
    named |= {"model.embed_tokens.weight": (len(WORDS), HIDDEN), "model.norm.weight": (HIDDEN,)}
    return {name: np.zeros(shape, np.float32) for name, shape in named.items()}


def write_model_folder(
    directory: Path,
    *,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """A sound folder; keys of `config` are added, and None takes one away."""
    directory.mkdir(parents=True, exist_ok=True)
    stated = {**CONFIG, **(config or {})}
    kept = {key: value for key, value in stated.items() if value is not None}
    (directory / "config.json").write_text(json.dumps(kept))
    chosen = tensors_of_llama() if tensors is None else tensors
    save_file(dict(chosen), directory / "model.safetensors", {"format": "pt"})
    write_tokenizer(directory)
    return directory


def set_template(model: Path, into: Path, template: str | None) -> Path:
    """A copy of a model's folder with another chat template, or without one."""
    shutil.copytree(model, into)
    if template is None:
        (into / "chat_template.jinja").unlink()
    else:
        (into / "chat_template.jinja").write_text(template)
    return into


def write_tokenizer(directory: Path) -> None:
    """One of a few letters, as fast tokenizers are."""
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    named = {"eos_token": "<|im_end|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(directory / "tokenizer_config.json", named)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    special = [
        {"id": number, "content": word, "special": True, "normalized": False}
        | {"single_word": False, "lstrip": False, "rstrip": False}
        for number, word in enumerate(WORDS[:2])
    ]
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"}
    parts = {"normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    write_json(
        directory / "tokenizer.json",
        {"version": "1.0", "added_tokens": special, "model": model, **parts},
    )


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """An object, in place of what was there."""
    path.write_text(json.dumps(content))
