"""Whether a base model's folder can be trained with, judged before anything heavy is loaded.

It reads configurations, headers of weights and the tokenizer's files, and needs no torch: so both
sides ask the same, the coordinator when it makes a plan, a silo in `silo-agent check` and before
its ranks start. In order: the files themselves, weights that are whole and in a precision that can
be trained on, all layers that the configuration speaks of, a tokenizer that fits, its template.
What only loading can show, single tensors that are missing, the ranks look at again.
"""

import re
from pathlib import Path
from typing import Any

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records.model_family import CAUSAL, ModelFamily
from data_contracts.protocol.records.round_plan import ANY_DAY
from infra.base_model.chat_template import ANSWER, PROMPT, on_day, template_fault
from infra.base_model.tokenizer_files import (
    chat_template,
    has_end,
    has_template,
    highest_token,
    json_object,
)
from infra.base_model.weight_files import Weights, is_pointer, pointer, read_weights
from infra.disk.model_files import CONFIG_FILE, model_files

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
    r"(^|\.)(embed_tokens|wte|word_embeddings|embeddings|embed_in|tok_embeddings|embedding)\.weight$"
)


def require_sound(
    model_dir: Path, *, needs_template: bool = True, family: ModelFamily = CAUSAL
) -> Weights:
    """The model's tensors; raises SiloOperatorError for what cannot be trained, by its name, and
    DataStewardError for a chat template that cannot be trained with.

    A model that has none is sound where nobody `needs_template`, as plain text does not, nor any
    family but causal models.
    """
    files = model_files(model_dir)
    for path in files.values():
        if is_pointer(path):
            raise pointer(path)
    config = json_object(model_dir / CONFIG_FILE)
    _require_full_precision(model_dir, config)
    weights = read_weights(model_dir)
    _require_full_tensors(model_dir, weights)
    _require_layers(model_dir, config, weights)
    _require_fitting_tokenizer(model_dir, weights)
    if family == CAUSAL:
        _require_end(model_dir)
    if family == CAUSAL and (needs_template or has_template(model_dir)):
        _require_template(model_dir)
    return weights


def likely_family(model_dir: Path) -> ModelFamily:
    """What a folder is looked at for where no plan says it: a model that ends what it writes is a
    causal one, and one that never ends anything fills in what is hidden."""
    return CAUSAL if has_end(model_dir) else "masked-lm"


def elements(weights: Weights) -> int:
    """Numbers in all tensors."""
    return sum(tensor.elements for tensor in weights.values())


def expert_elements(weights: Weights) -> int:
    """Numbers in the experts of a mixture, of which a token uses a few; shared ones not counted."""
    return sum(tensor.elements for name, tensor in weights.items() if ".experts." in name)


def _require_full_precision(model_dir: Path, config: dict[str, Any]) -> None:
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


def _require_full_tensors(model_dir: Path, weights: Weights) -> None:
    for name, tensor in weights.items():
        if _QUANTISED_TENSORS.search(name):
            raise _quantised(model_dir, f"the tensor {name}")
        if tensor.dtype not in _FULL_TYPES and name.endswith("weight"):
            raise _quantised(model_dir, f"the tensor {name} of type {tensor.dtype}")


def _require_layers(model_dir: Path, config: dict[str, Any], weights: Weights) -> None:
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


def _require_fitting_tokenizer(model_dir: Path, weights: Weights) -> None:
    """Every id that the tokenizer gives has a row in the embeddings."""
    rows = [
        tensor.shape[0]
        for name, tensor in weights.items()
        if _EMBEDDINGS.search(name) and len(tensor.shape) == 2
    ]
    highest = highest_token(model_dir)
    if rows and highest is not None and highest >= max(rows):
        raise misfit(f"tokenizer in {model_dir}", highest, max(rows))


def _require_end(model_dir: Path) -> None:
    if not has_end(model_dir):
        raise SiloOperatorError(
            f"tokenizer in {model_dir}",
            expected="an eos_token, at which an answer ends",
            found="none in tokenizer_config.json, special_tokens_map.json, generation_config.json "
            "or config.json",
            action="use an instruction-tuned base model, with all files of its tokenizer",
        )


def _require_template(model_dir: Path) -> None:
    turn = chat_template(model_dir, on_day(ANY_DAY)).turn(PROMPT, ANSWER)
    if PROMPT not in turn.before or ANSWER not in turn.answer:
        found = "the texts of a record at other places, or nowhere"
        raise template_fault("one that writes the question, and after it the answer", found)


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
