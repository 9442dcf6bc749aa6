"""What of a base model's architecture decides the memory of training it: config.json and headers.

No torch is loaded. Names of sizes differ between architectures, so each has its list of names; what
is of no such name is taken from the tensors themselves. A model that says less than its layers,
width and vocabulary cannot be planned for, and is refused by what is missing.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_contracts.errors import SiloOperatorError
from infra.base_model.context import stated_context
from infra.base_model.folder_check import elements
from infra.base_model.tokenizer_files import TOKENIZER_NAME, json_object
from infra.base_model.weight_files import TensorHeader, Weights, read_weights
from infra.disk.model_parts import CONFIG_FILE, is_pipeline

Activation = Literal["fused", "scaled", "composed", "relu"]
"""How many tensors an activation function keeps: one, two as `quick_gelu` of CLIP, four as
`gelu_new` of GPT-2, its result."""

_NAMES: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model", "dim"),
    "intermediate": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "head_size": ("head_dim",),
    "vocabulary": ("vocab_size",),
    "experts_of_a_token": ("num_experts_per_tok", "num_experts_per_token", "moe_topk"),
    "expert": ("moe_intermediate_size",),
}
_ACTIVATIONS = ("hidden_act", "activation_function", "hidden_activation", "activation")
_ATTENTION_DROPOUT = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")
_RESIDUAL_DROPOUT = ("resid_pdrop", "hidden_dropout", "resid_dropout", "hidden_dropout_prob")
PICTURES = "vision_model."
"""What the tensors of the tower begin with that takes pictures, where a model has two."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
_GATE = re.compile(r"(gate_proj|gate_up_proj|\.w1|\.w3|wi_0)(\.weight)?$")
_NORM = re.compile(r"(norm\w*|ln_\w+|ln\w*)\.weight$")


@dataclass(frozen=True)
class ModelShape:
    """Sizes in elements unless said otherwise.

    `norms` are the normalisations of a layer over its whole width, `head_norms` those over each
    head. `attention_width` is heads x head size. `feed_forward` is what one token passes through,
    of all its experts. `largest` is the largest tensor and `layer` the weights of one layer.
    `linear` are the matrices of the layers, of which experts are none: what can be quantised.
    `file_bytes` are those of all weights as they lie on the disk, `stored_bits` those of one.
    `tokenizer_bytes` is the size of its vocabulary's file. `context` are the tokens that it was
    made for, None without a limit. Of a model that has a tower for pictures beside the one for text
    `pictures` is that one, with the tokens of a picture as its `context`: patches and one more.
    """

    parameters: int
    file_bytes: int
    largest: int
    layer: int
    linear: int
    layers: int
    hidden: int
    attention_width: int
    heads: int
    feed_forward: int
    vocabulary: int
    norms: int
    head_norms: int
    is_gated: bool
    activation: Activation
    keeps_scores: bool
    has_residual_dropout: bool
    is_softcapped: bool
    tokenizer_bytes: int
    context: int | None = None
    pictures: "ModelShape | None" = None

    @property
    def towers(self) -> "tuple[ModelShape, ...]":
        """This one, and the one for pictures."""
        return (self,) if self.pictures is None else (self, self.pictures)


def model_shape(model_dir: Path) -> ModelShape:
    """The shape of the model in a folder; raises SiloOperatorError where it does not say it.

    Of a pipeline nothing is said: how much a UNet keeps for the backward pass was not measured on
    one of a real size.
    """
    if is_pipeline(model_dir):
        raise SiloOperatorError(
            f"memory of training {model_dir}",
            expected="a model of transformers, whose memory is planned by its layers",
            found="a pipeline of diffusers, of which no plan is made",
            action="set zero_stage, micro_batch and gradient_checkpointing in silo-agent.toml to "
            "numbers and true or false, and watch the memory of the first round "
            "(`silo-agent status --watch`)",
        )
    return shape_of(
        json_object(model_dir / CONFIG_FILE),
        read_weights(model_dir),
        tokenizer_bytes=_size(model_dir / TOKENIZER_NAME),
        where=model_dir,
    )


def shape_of(
    config: dict[str, Any], weights: Weights, *, tokenizer_bytes: int, where: Path
) -> ModelShape:
    """The shape that configuration and headers state; `where` is named in the error."""
    text = config.get("text_config")
    parts = [text, config] if isinstance(text, dict) else [config]
    layers, hidden, heads = (_needed(parts, key, where) for key in ("layers", "hidden", "heads"))
    vocabulary = _needed(parts, "vocabulary", where)
    attention = heads * int(_number(parts, _NAMES["head_size"]) or hidden // heads)
    pictures = _pictures(config, weights, where)
    first = {name: tensor for name, tensor in weights.items() if _place(name) == 0}
    if pictures is not None:
        first = {name: first[name] for name in first if not name.startswith(PICTURES)}
    norms = [tensor.elements for name, tensor in first.items() if _NORM.search(name)]
    drops_attention = _number(parts, _ATTENTION_DROPOUT, float) or 0
    softcap = _number(parts, ("attn_logit_softcapping",), float) or 0
    return ModelShape(
        parameters=elements(weights),
        file_bytes=sum(tensor.size_bytes for tensor in weights.values()),
        largest=max((tensor.elements for tensor in weights.values()), default=0),
        layer=sum(tensor.elements for tensor in first.values()),
        linear=sum(tensor.elements for name, tensor in weights.items() if _is_linear(name, tensor)),
        layers=layers,
        hidden=hidden,
        attention_width=attention,
        heads=heads,
        feed_forward=_feed_forward(parts, hidden),
        vocabulary=vocabulary,
        norms=sum(size == hidden for size in norms) or 2,
        head_norms=sum(size != hidden for size in norms),
        is_gated=any(_GATE.search(name) for name in first),
        activation=_activation(parts),
        keeps_scores=drops_attention > 0 or softcap > 0,
        has_residual_dropout=(_number(parts, _RESIDUAL_DROPOUT, float) or 0) > 0,
        is_softcapped=(_number(parts, ("final_logit_softcapping",), float) or 0) > 0,
        tokenizer_bytes=tokenizer_bytes,
        context=stated_context(config),
        pictures=pictures,
    )


def _pictures(config: dict[str, Any], weights: Weights, where: Path) -> ModelShape | None:
    """The tower for pictures; None where there is none beside one for text."""
    vision = config.get("vision_config")
    tower = {name: each for name, each in weights.items() if name.startswith(PICTURES)}
    if not isinstance(vision, dict) or not tower:
        return None
    side, patch = (_number([vision], (name,)) for name in ("image_size", "patch_size"))
    tokens = int((side or 0) // (patch or 1)) ** 2 + 1
    words = {"vocab_size": 1, "max_position_embeddings": tokens}
    return shape_of({**vision, **words}, _unnamed(tower), tokenizer_bytes=0, where=where)


def _unnamed(tower: Weights) -> Weights:
    """Under the names that they have in the tower."""
    return {name.removeprefix(PICTURES): tensor for name, tensor in tower.items()}


def _feed_forward(parts: list[dict[str, Any]], hidden: int) -> int:
    width = _number(parts, _NAMES["intermediate"]) or 4 * hidden
    experts = _number(parts, _NAMES["experts_of_a_token"])
    if not experts:
        return int(width)
    return int(experts * (_number(parts, _NAMES["expert"]) or width))


def _activation(parts: list[dict[str, Any]]) -> Activation:
    name = next((str(part[key]) for part in parts for key in _ACTIVATIONS if key in part), "")
    if name.startswith("relu"):
        return "relu"
    if name == "quick_gelu":
        return "scaled"
    return "composed" if name in ("gelu_new", "gelu_fast", "gelu_python") else "fused"


def _needed(parts: list[dict[str, Any]], key: str, where: Path) -> int:
    found = _number(parts, _NAMES[key])
    if not found:
        raise SiloOperatorError(
            f"{CONFIG_FILE} of the base model {where}",
            expected=f"the number of {key}, as {' or '.join(_NAMES[key])}",
            found="none",
            action="memory cannot be planned for this model: use another one, or set zero_stage "
            "and micro_batch to numbers and watch the first round",
        )
    return int(found)


def _number(
    parts: list[dict[str, Any]], names: Iterable[str], kind: type[int] | type[float] = int
) -> float | None:
    kinds = (int,) if kind is int else (int, float)
    for part in parts:
        for name in names:
            value = part.get(name)
            if isinstance(value, kinds) and not isinstance(value, bool):
                return value
    return None


def _is_linear(name: str, tensor: TensorHeader) -> bool:
    is_expert = ".experts." in name
    return len(tensor.shape) == 2 and _place(name) is not None and not is_expert


def _place(name: str) -> int | None:
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
