"""The base model with the plan's LoRA modules on it.

The LoRA configuration is built from the plan's adapter layout alone. Adapter tensors pass through
`data_contracts`' gate. A residual is a second adapter beside the trained one: both act, and it is
never trained.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model

from data_contracts.adapters.adapter_format import expected_shapes
from data_contracts.adapters.starting_adapter import Float32Array, InitialAdapter
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import CAUSAL, CAUSAL_TASK, FamilyTask
from data_contracts.protocol.records.training_recipe import TrainedFactors
from silo_agent.training.engine_spec import PINNED, Device, HeldAs
from silo_agent.training.ranks.base_model import together, whole_shape
from silo_agent.training.ranks.core import add_cores, core_parameters
from silo_agent.training.ranks.devices import loading_device
from silo_agent.training.ranks.families.registry import family_of
from silo_agent.training.ranks.packed_attention import compute_blocks_only
from silo_agent.training.ranks.quantised import quantising, require_quantised

ADAPTER_NAME = "default"
RESIDUAL_NAME = "residual"
"""What the model calls its two adapters; neither name is in an adapter file."""

_FACTORS: dict[TrainedFactors, tuple[str, ...]] = {
    "both": (".lora_A.", ".lora_B."),
    "a": (".lora_A.",),
    "b": (".lora_B.",),
    "core": (),
}


def load_lora_model(
    model_dir: Path,
    layout: AdapterLayout,
    device: Device,
    *,
    residual: AdapterLayout | None = None,
    trained: TrainedFactors = "both",
    held: HeldAs | None = None,
    task: FamilyTask = CAUSAL_TASK,
) -> Any:
    """Base model plus LoRA modules, all of it in one precision but for quantised base weights.

    Tensors that are trained whole, a head, begin as the layout says, in the base model as well.

    Without `held` it is the model that is measured: full, float32 on CPU and bfloat16 on CUDA.
    Only the `trained` factors are trainable, never the residual, which is there if its layout is.
    Where cores are trained, there is one, the identity, between the factors of every pair.
    Raises SiloOperatorError when the directory holds no model or it cannot be held so, and
    FederationOperatorError when the model lacks modules of a layout.
    """
    held = held or PINNED[device]
    dtype: torch.dtype = getattr(torch, held.precision)
    # A personal adapter has no head of its own: that of the federation acts beside it.
    with_head = layout if residual is None or layout.wholes else residual
    whole = [target.module for target in with_head.wholes]
    options = quantising(held, loading_device(device))
    with _numbers_left_whole():
        base = family_of(task).load_base(model_dir, whole, dtype=dtype, **options)
    _begin_head(base, with_head)
    _give_dimensions(base)
    require_quantised(base, held.base_weights)
    if device == "cpu":
        compute_blocks_only()
    try:
        model = get_peft_model(base, _lora_config(layout, task), autocast_adapter_dtype=False)
        if residual is not None:
            config = _lora_config(residual, task)
            model.add_adapter(RESIDUAL_NAME, config, autocast_adapter_dtype=False)
            # The tuner's own method: that of the model takes one name and turns the other off.
            model.base_model.set_adapter([ADAPTER_NAME, RESIDUAL_NAME])
    except ValueError as error:
        raise _modules_differ(str(error)[:200]) from None
    for adapter in (ADAPTER_NAME, RESIDUAL_NAME):
        # On quantised layers PEFT makes them float32 whatever the model is.
        for parameter in adapter_parameters(model, adapter).values():
            parameter.data = parameter.data.to(dtype)
    _require_shapes(model, layout, ADAPTER_NAME)
    if residual is not None:
        _require_shapes(model, residual, RESIDUAL_NAME)
    if trained == "core":
        add_cores(model, ADAPTER_NAME)
    _train_only(model, trained)
    return model


def adapter_parameters(model: Any, adapter: str = ADAPTER_NAME) -> dict[str, torch.nn.Parameter]:
    """Parameters under the tensor names of an adapter file, in the order of the model: those of
    LoRA, and those that are trained whole."""
    ending, kept = f".{adapter}.weight", f".modules_to_save.{adapter}."
    found = dict[str, torch.nn.Parameter]()
    for name, parameter in model.named_parameters():
        if name.endswith(ending) and (".lora_A." in name or ".lora_B." in name):
            found[name.removesuffix(ending) + ".weight"] = parameter
        elif kept in name:
            found[name.replace(kept, ".")] = parameter
    return found


def placed_parameters(model: Any, adapter: str = ADAPTER_NAME) -> dict[str, torch.nn.Parameter]:
    """Those of `adapter_parameters`, and the cores between them."""
    return adapter_parameters(model, adapter) | core_parameters(model, adapter)


def trained_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """Those of `placed_parameters` that training changes."""
    return {name: p for name, p in placed_parameters(model).items() if p.requires_grad}


@contextmanager
def without_adapters(model: Any) -> Iterator[None]:
    """The base model alone; PEFT turns on training of every adapter again, which is undone."""
    trained = {id(parameter) for parameter in trained_parameters(model).values()}
    try:
        with model.disable_adapter():
            yield
    finally:
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in trained)


def set_adapter(
    model: Any, tensors: Iterable[tuple[str, Float32Array]], adapter: str = ADAPTER_NAME
) -> None:
    """Copy adapter tensors into the model, whose parameters are in one piece.

    A core that is not among them becomes the identity.
    """
    parameters, cores = placed_parameters(model, adapter), core_parameters(model, adapter)
    with torch.no_grad():
        for name, array in tensors:
            parameters[name].copy_(torch.from_numpy(np.array(array, dtype=np.float32)))
            cores.pop(name, None)
        for core in cores.values():
            core.copy_(torch.eye(len(core)))


def _begin_head(base: Any, layout: AdapterLayout) -> None:
    """What the files lack begins the same everywhere, also where the adapter is turned off."""
    if not layout.wholes:
        return
    initial = InitialAdapter(layout)
    parameters = dict(base.named_parameters())
    for target in layout.wholes:
        parameter = parameters[target.module]
        with together([parameter]), torch.no_grad():
            values = torch.from_numpy(np.array(initial.module(target)[1]))
            parameter.copy_(values.reshape(parameter.shape))


def _numbers_left_whole() -> AbstractContextManager[None]:
    """Where DeepSpeed is not loaded, as in an evaluation alone, nothing is taken apart."""
    if "deepspeed" not in sys.modules:
        return nullcontext()
    from silo_agent.training.ranks.zero_settings import numbers_left_whole

    return numbers_left_whole()


def _give_dimensions(base: Any) -> None:
    """DeepSpeed shares parameters out as bytes, which a number without dimensions cannot be seen
    as; with one dimension it multiplies as before."""
    for parameter in base.parameters():
        if not parameter.dim():
            parameter.data = parameter.data.reshape(1)


def _lora_config(layout: AdapterLayout, task: FamilyTask) -> LoraConfig:
    whole = sorted({target.module.rpartition(".")[0] for target in layout.wholes})
    return LoraConfig(
        r=layout.rank,
        lora_alpha=layout.alpha,
        use_rslora=layout.use_rslora,
        target_modules=[target.module for target in layout.pairs],
        modules_to_save=whole or None,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM" if task.family == CAUSAL else None,
    )


def _require_shapes(model: Any, layout: AdapterLayout, adapter: str) -> None:
    found = {name: whole_shape(p) for name, p in adapter_parameters(model, adapter).items()}
    if found != expected_shapes(layout):
        wrong = sorted(set(found.items()) ^ set(expected_shapes(layout).items()))[0]
        raise _modules_differ(f"a difference at {wrong[0]}, shape {wrong[1]}")


def _train_only(model: Any, factors: TrainedFactors) -> None:
    model.requires_grad_(False)
    for name, parameter in adapter_parameters(model).items():
        is_pair = ".lora_A." in name or ".lora_B." in name
        parameter.requires_grad_(not is_pair or any(factor in name for factor in _FACTORS[factors]))
    for parameter in core_parameters(model, ADAPTER_NAME).values():
        parameter.requires_grad_(True)


def _modules_differ(found: str) -> FederationOperatorError:
    return FederationOperatorError(
        "adapter layout of the plan",
        expected="modules that the base model has, with the same shapes",
        found=found,
        action="build the plan's adapter targets from the base model that it names",
    )
