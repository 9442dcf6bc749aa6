"""Which inputs of a layer are kept for the backward pass of LoRA alone, by the modules' names."""

import re
from collections.abc import Iterable

from data_contracts.protocol.records.adapter_layout import AdapterTarget
from infra.base_model.model_shape import ModelShape

_OF_A_LAYER = re.compile(r"^(?P<layer>.*?\.\d+)\.")
_ATTENTION = re.compile(r"attn|attention")
_AFTER_ATTENTION = re.compile(r"(o_proj|out_proj|c_proj|dense|wo)$")


def lora_inputs(shape: ModelShape, targets: Iterable[AdapterTarget]) -> list[tuple[int, int]]:
    """Inputs that are kept for LoRA alone, in the layer that has most: modules share theirs."""
    found_in: dict[str, dict[str, int]] = {}
    for target in targets:
        found = _OF_A_LAYER.match(target.module)
        layer, leaf = found["layer"] if found else "", target.module.rpartition(".")[2]
        is_attention = _ATTENTION.search(target.module.removeprefix(layer)) is not None
        if is_attention and _AFTER_ATTENTION.search(leaf):
            continue
        is_inner = not is_attention and target.in_features != shape.hidden
        if is_inner and not shape.is_gated and shape.activation == "relu":
            continue
        place = "attention" if is_attention else "inner" if is_inner else "outer"
        found_in.setdefault(layer, {})[place] = target.in_features
    most = max(found_in.values(), key=lambda inputs: sum(inputs.values()), default={})
    return [(size, 1) for size in most.values()]
