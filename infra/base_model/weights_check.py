"""Whether weights of one model can be trained on, by headers and configurations alone.

They are in full precision, have all layers that the configuration speaks of, and fit the tokenizer.
"""

import re
from pathlib import Path
from typing import Any

from data_contracts.errors import SiloOperatorError
from infra.base_model.tokenizer_files import highest_token
from infra.base_model.weight_files import Weights
from infra.disk.model_parts import CONFIG_FILE

_QUANTISED_NAMES = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
    "hf_quant_config.json": "ModelOpt",
}
_QUANTISED_TENSORS = re.compile(
    r"\.(qweight|qzeros|g_idx|weight_packed|weight_scale|weight_scale_inv|quant_state\.\w+|absmax"
    r"|SCB|weight_zero_point|\w+_blocks)$"
)
_FULL_TYPES = {"F64", "F32", "F16", "BF16"}
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_LAYER = re.compile(r"^(?P<of>(?:.*\.)?(?:layers|layer|h|blocks|block))\.(?P<place>\d+)\.")
_EMBEDDINGS = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|embeddings|embed_in|tok_embeddings|embedding"
    r"|token_embedding)\.weight$"
)


def require_full_precision(model_dir: Path, config: dict[str, Any]) -> None:
    """Raise SiloOperatorError where files or configuration say that it is quantised."""
    for name, method in _QUANTISED_NAMES.items():
        if (model_dir / name).exists():
            raise _quantised(model_dir, f"{method}, by {name}")
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in parts:
        quantised = part.get("quantization_config") or part.get("compression_config")
        if isinstance(quantised, dict):
            method = quantised.get("quant_method") or _bitsandbytes(quantised)
            raise _quantised(model_dir, f"{str(method)[:40]}, by quantization_config")


def _bitsandbytes(quantised: dict[str, Any]) -> str:
    """Files of before there was a `quant_method`."""
    bits = [name for name in ("load_in_4bit", "load_in_8bit") if quantised.get(name)]
    return "bitsandbytes" if bits else "a method that it does not name"


def require_full_tensors(model_dir: Path, weights: Weights) -> None:
    """Raise SiloOperatorError where a tensor is quantised."""
    for name, tensor in weights.items():
        if _QUANTISED_TENSORS.search(name):
            raise _quantised(model_dir, f"the tensor {name}")
        if tensor.dtype not in _FULL_TYPES and name.endswith("weight"):
            raise _quantised(model_dir, f"the tensor {name} of type {tensor.dtype}")


def require_layers(model_dir: Path, config: dict[str, Any], weights: Weights) -> None:
    """Layers count from 0 without a gap, and are as many as the configuration says."""
    places: dict[str, set[int]] = {}
    for name in weights:
        if (layer := _LAYER.match(name)) is not None:
            places.setdefault(layer["of"], set()).add(int(layer["place"]))
    for of, found in places.items():
        if gaps := sorted(set(range(max(found) + 1)) - found):
            raise _incomplete(model_dir, f"no tensor of {of}.{gaps[0]}")
    wanted = _layers_of(config)
    most = max((len(found) for found in places.values()), default=0)
    if wanted is not None and places and most < wanted:
        raise _incomplete(model_dir, f"{most} layers, and {wanted} in {CONFIG_FILE}")


def _layers_of(config: dict[str, Any]) -> int | None:
    text = config.get("text_config")
    for part in (text if isinstance(text, dict) else {}, config):
        for name in _LAYERS:
            if type(part.get(name)) is int:
                return int(part[name])
    return None


def require_fitting_tokenizer(tokenizer_dir: Path, weights: Weights) -> None:
    """Every id that the tokenizer gives has a row in the embeddings of `weights`."""
    rows = [
        tensor.shape[0]
        for name, tensor in weights.items()
        if _EMBEDDINGS.search(name) and len(tensor.shape) == 2
    ]
    highest = highest_token(tokenizer_dir)
    if rows and highest is not None and highest >= max(rows):
        raise misfit(f"tokenizer in {tokenizer_dir}", highest, max(rows))


def misfit(what: str, highest: int, rows: int) -> SiloOperatorError:
    """The fault of a tokenizer that knows more tokens than the model has embeddings."""
    return SiloOperatorError(
        what,
        expected=f"token ids below {rows:,}, the rows of the model's embeddings",
        found=f"the id {highest:,}",
        action="take tokenizer and weights from the same model, or extend its embeddings first",
    )


def _quantised(model_dir: Path, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"base model {model_dir}",
        expected="weights in float32, bfloat16 or float16",
        found=f"a checkpoint that is quantised already: {found}",
        action="use the model that it was made of; its own publisher names it",
    )


def _incomplete(model_dir: Path, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"weights of the base model {model_dir}",
        expected="every layer of the model",
        found=f"{found}: what is missing would be drawn at random",
        action="copy the model again, all of its files",
    )
