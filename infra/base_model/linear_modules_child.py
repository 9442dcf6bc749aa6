"""The process that asks: `python -m infra.base_model.linear_modules_child FOLDER TASK`.

One line of JSON on stdout, or the reason why there is none and exit code 1. Nothing else of this
program imports it: it loads PyTorch, transformers and PEFT.
"""

import copy
import json
import logging
import sys
from collections.abc import Collection, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D

from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.model_family import CAUSAL, DENOISING, FamilyTask
from infra.base_model.heads import NotAHeadError, head_of
from infra.base_model.model_class import misfit, model_class, model_options
from infra.base_model.unet import empty_unet, is_adapted


def main() -> int:
    """Ask about the folder that is the first argument, for the task that is the second."""
    try:
        folder, task = sys.argv[1], FamilyTask.model_validate_json(sys.argv[2])
        model, head = _model(folder, task)
        modules, left_out = takes_lora(model, {target.module for target in head})
    except Exception as error:
        # Whatever a library says of a configuration is the answer.
        words = str(error).split("\n")[0] or type(error).__name__
        sys.stdout.write(f"{words}\n")
        return 1
    told = [target.model_dump(mode="json") for target in head]
    sys.stdout.write(json.dumps({"modules": modules, "left_out": left_out, "head": told}) + "\n")
    return 0


def _model(folder: str, task: FamilyTask) -> tuple[Any, tuple[AdapterTarget, ...]]:
    """The model on the meta device, and the tensors of its head that the folder's files lack."""
    if task.family == DENOISING:
        return empty_unet(folder), ()
    local = {"trust_remote_code": False, "local_files_only": True}
    if task.family == CAUSAL:
        config = AutoConfig.from_pretrained(folder, **local)
        with torch.device("meta"):
            return model_class(task).from_config(config, trust_remote_code=False), ()
    logging.disable(logging.WARNING)
    model, loaded = model_class(task).from_pretrained(
        folder, device_map="meta", output_loading_info=True, **model_options(task), **local
    )
    if (why := misfit(model, task)) is not None:
        raise ValueError(why)
    tied = getattr(model, "all_tied_weights_keys", {})
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    try:
        head = head_of(set(loaded["missing_keys"]) - set(tied), shapes, model.base_model_prefix)
    except NotAHeadError as error:
        raise ValueError(f"no {error} in its files: what is missing would be drawn") from None
    return model, head.trained


def takes_lora(
    model: Any, head_tensors: Collection[str] = ()
) -> tuple[list[tuple[str, int, int]], dict[str, str]]:
    """(name, inputs, outputs) of modules on which PEFT puts LoRA, in the order of the model; and
    by the last part of a name what PEFT says of those on which it does not.

    The output layer and modules of `head_tensors`, which are trained whole, are none of them; of a
    UNet the attention projections are.
    """
    # diffusers' models have no output layer of this kind.
    head = getattr(model, "get_output_embeddings", lambda: None)()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
        and module is not head
        and f"{name}.weight" not in head_tensors
        and is_adapted(model, name)
    ]
    try:
        return _adapted(model, linear), {}
    except (ValueError, TypeError, RuntimeError):
        pass
    taken, left_out = list[str](), dict[str, str]()
    for end in dict.fromkeys(name.rpartition(".")[2] for name in linear):
        own = [name for name in linear if name.rpartition(".")[2] == end]
        try:
            _adapted(model, own)
        except (ValueError, TypeError, RuntimeError) as error:
            left_out[end] = str(error).split("\n")[0][:200]
        else:
            taken += own
    if not taken:
        return [], left_out
    return _adapted(model, [name for name in linear if name in set(taken)]), left_out


def _adapted(model: Any, names: Sequence[str]) -> list[tuple[str, int, int]]:
    """What PEFT makes of these modules; raises what PEFT raises, and ValueError for another set."""
    config = LoraConfig(r=1, target_modules=list(names), bias="none", task_type=None)
    with torch.device("meta"):
        adapted = get_peft_model(copy.deepcopy(model), config).get_base_model()
    found = {
        name: (module.lora_A["default"].in_features, module.lora_B["default"].out_features)
        for name, module in adapted.named_modules()
        if "default" in getattr(module, "lora_A", {})
    }
    if set(found) != set(names):
        other = sorted(set(found) ^ set(names))[0]
        raise ValueError(f"PEFT adapts other modules than it was asked for: {other}")
    return [(name, *found[name]) for name in names]


if __name__ == "__main__":
    sys.exit(main())
