"""What plain PEFT asks of a folder with an adapter: two files, one of them made of a layout."""

from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.model_family import CAUSAL, ModelFamily

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"


_TASK_TYPES: dict[ModelFamily, str] = {
    "causal-lm": "CAUSAL_LM",
    "sequence-classification": "SEQ_CLS",
}
"""As PEFT calls them; others have no type, and load as any model does."""


def peft_config(
    layout: AdapterLayout, base_model: BaseModelRef, family: ModelFamily = CAUSAL
) -> dict[str, object]:
    """PEFT's LoraConfig as JSON values; every field that matters is explicit.

    Without a `hub_id` the base model's name stands where PEFT looks for one: it tells a reader what
    to load, and PEFT loads the adapter onto whatever model it is given. Tensors that are trained
    whole are in it as the modules that they are parameters of.
    """
    return {
        "peft_type": "LORA",
        "task_type": _TASK_TYPES.get(family),
        "base_model_name_or_path": base_model.hub_id or base_model.name,
        "revision": base_model.hub_revision,
        "inference_mode": True,
        "r": layout.rank,
        "lora_alpha": layout.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": layout.use_rslora,
        "use_dora": False,
        "init_lora_weights": True,
        "modules_to_save": _modules_to_save(layout) or None,
        "target_modules": sorted(target.module for target in layout.pairs),
    }


def _modules_to_save(layout: AdapterLayout) -> list[str]:
    return sorted({target.module.rpartition(".")[0] for target in layout.wholes})
