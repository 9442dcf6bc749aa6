"""The sizes that decide memory are read from config.json and headers, whatever their names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.errors import SiloOperatorError
from infra.base_model.model_shape import model_shape, shape_of
from infra.base_model.weight_files import TensorHeader, Weights
from tests.model_folders import WORDS, tensors_of_llama, write_model_folder
from tests.tiny_model import HIDDEN, INTERMEDIATE, LAYERS

BERT: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_attention_heads": 3,
    "vocab_size": 100,
    "hidden_act": "gelu",
    "attention_probs_dropout_prob": 0.1,
    "hidden_dropout_prob": 0.1,
    "max_position_embeddings": 64,
}
TOWER: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 32,
    "intermediate_size": 80,
    "hidden_act": "quick_gelu",
    "attention_dropout": 0.0,
}
CLIP: dict[str, Any] = {
    "text_config": {**TOWER, "vocab_size": 100, "max_position_embeddings": 77},
    "vision_config": {
        **TOWER,
        "num_hidden_layers": 3,
        "hidden_size": 64,
        "image_size": 40,
        "patch_size": 8,
    },
}

GPT2: dict[str, Any] = {
    "n_layer": 2,
    "n_embd": 48,
    "n_inner": None,
    "n_head": 3,
    "vocab_size": 100,
    "activation_function": "gelu_new",
    "attn_pdrop": 0.1,
    "resid_pdrop": 0.1,
}


def gpt2_weights() -> Weights:
    shapes = {
        "ln_1.weight": (48,),
        "attn.c_attn.weight": (48, 144),
        "attn.c_proj.weight": (48, 48),
        "ln_2.weight": (48,),
        "mlp.c_fc.weight": (48, 192),
        "mlp.c_proj.weight": (192, 48),
    }
    layers = {f"h.{n}.{name}": shape for n in range(2) for name, shape in shapes.items()}
    named = {"wte.weight": (100, 48), "wpe.weight": (64, 48), "ln_f.weight": (48,), **layers}
    return {name: TensorHeader("F16", shape) for name, shape in named.items()}


def test_a_llama_says_its_shape(tmp_path: Path) -> None:
    tensors = tensors_of_llama()
    shape = model_shape(write_model_folder(tmp_path / "model"))
    assert (shape.layers, shape.hidden, shape.heads) == (LAYERS, HIDDEN, 4)
    assert (shape.feed_forward, shape.vocabulary) == (INTERMEDIATE, len(WORDS))
    assert shape.attention_width == HIDDEN
    assert shape.parameters == sum(array.size for array in tensors.values())
    assert shape.file_bytes == sum(array.nbytes for array in tensors.values())
    assert shape.largest == max(array.size for array in tensors.values())
    first = [array.size for name, array in tensors.items() if ".layers.0." in name]
    assert shape.layer == sum(first)
    assert (shape.norms, shape.head_norms) == (2, 0)
    assert shape.is_gated and shape.activation == "fused"
    assert not (shape.keeps_scores or shape.has_residual_dropout or shape.is_softcapped)
    assert shape.tokenizer_bytes == (tmp_path / "model" / "tokenizer.json").stat().st_size


def test_norms_of_heads_are_not_those_of_the_width(tmp_path: Path) -> None:
    more = {
        f"model.layers.{layer}.self_attn.{which}_norm.weight": np.zeros(8, np.float32)
        for layer in range(LAYERS)
        for which in ("q", "k")
    }
    folder = write_model_folder(tmp_path / "model", tensors=tensors_of_llama() | more)
    shape = model_shape(folder)
    assert (shape.norms, shape.head_norms) == (2, 2)


def test_a_gpt_2_calls_them_otherwise() -> None:
    shape = shape_of(GPT2, gpt2_weights(), tokenizer_bytes=0, where=Path("gpt2"))
    assert (shape.layers, shape.hidden, shape.heads, shape.vocabulary) == (2, 48, 3, 100)
    assert shape.feed_forward == 4 * 48, "which GPT-2 leaves out"
    assert (shape.is_gated, shape.activation, shape.norms) == (False, "composed", 2)
    assert shape.keeps_scores and shape.has_residual_dropout
    assert shape.file_bytes == 2 * shape.parameters, "in half precision"


def test_the_text_part_of_a_larger_configuration_counts() -> None:
    outer = {"text_config": GPT2, "n_layer": 99, "vocab_size": 7, "hidden_size": 5}
    shape = shape_of(outer, gpt2_weights(), tokenizer_bytes=0, where=Path("gpt2"))
    assert (shape.layers, shape.vocabulary, shape.heads) == (2, 100, 3)


def test_a_token_passes_through_a_few_experts() -> None:
    experts = {"num_experts_per_tok": 3, "moe_intermediate_size": 10, "n_inner": 77}
    mixture = shape_of(GPT2 | experts, gpt2_weights(), tokenizer_bytes=0, where=Path("m"))
    assert mixture.feed_forward == 30
    own = {"num_experts_per_tok": 2, "n_inner": 77}
    assert shape_of(GPT2 | own, {}, tokenizer_bytes=0, where=Path("m")).feed_forward == 154


@pytest.mark.parametrize("key", ["n_layer", "n_embd", "n_head", "vocab_size"])
def test_what_a_configuration_does_not_say_is_named(key: str) -> None:
    stated = {name: value for name, value in GPT2.items() if name != key}
    with pytest.raises(SiloOperatorError, match=rf"config\.json.*{key}.*memory cannot be planned"):
        shape_of(stated, gpt2_weights(), tokenizer_bytes=0, where=Path("gpt2"))


def clip_weights() -> Weights:
    found: dict[str, tuple[int, ...]] = {"text_model.embeddings.token_embedding.weight": (100, 32)}
    for tower, layers, width in (("text_model", 2, 32), ("vision_model", 3, 64)):
        for n in range(layers):
            found |= {
                f"{tower}.encoder.layers.{n}.layer_norm1.weight": (width,),
                f"{tower}.encoder.layers.{n}.layer_norm2.weight": (width,),
                f"{tower}.encoder.layers.{n}.mlp.fc1.weight": (80, width),
            }
    return {name: TensorHeader("F32", shape) for name, shape in found.items()}


def test_a_bert_drops_out_and_was_made_for_a_length() -> None:
    shape = shape_of(BERT, {}, tokenizer_bytes=0, where=Path("bert"))
    assert shape.keeps_scores and shape.has_residual_dropout
    assert (shape.is_gated, shape.activation, shape.context) == (False, "fused", 64)
    assert shape.towers == (shape,)


def test_a_clip_has_a_tower_for_text_and_one_for_pictures() -> None:
    weights = clip_weights()
    shape = shape_of(CLIP, weights, tokenizer_bytes=0, where=Path("clip"))
    assert (shape.layers, shape.hidden, shape.norms, shape.context) == (2, 32, 2, 77)
    assert shape.activation == "scaled" and not shape.keeps_scores
    assert shape.layer == 2 * 32 + 80 * 32
    assert shape.parameters == sum(tensor.elements for tensor in weights.values())
    pictures = shape.pictures
    assert pictures is not None and shape.towers == (shape, pictures)
    assert (pictures.layers, pictures.hidden, pictures.feed_forward) == (3, 64, 80)
    assert pictures.context == 5 * 5 + 1, "patches, and one for the picture"
    assert pictures.layer == 2 * 64 + 80 * 64


def test_a_causal_model_that_also_sees_has_no_tower_of_its_own_for_it() -> None:
    seeing = GPT2 | {"vision_config": {"hidden_size": 5}}
    shape = shape_of(seeing, gpt2_weights(), tokenizer_bytes=0, where=Path("gpt2"))
    assert shape == shape_of(GPT2, gpt2_weights(), tokenizer_bytes=0, where=Path("gpt2"))
