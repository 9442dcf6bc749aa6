"""The base model with the plan's LoRA modules on it, and its loss on a packed sequence.

The LoRA configuration is built from the plan's adapter layout alone. Adapter tensors pass through
`data_contracts`' gate. A residual is a second adapter beside the trained one: both act, and it is
never trained.
"""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from data_contracts.adapters.adapter_format import expected_shapes
from data_contracts.adapters.starting_adapter import Float32Array
from data_contracts.errors import FederationOperatorError, SiloOperatorError
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.round_plan import TrainedFactors
from silo_agent.training.engine_spec import PINNED, Device, HeldAs
from silo_agent.training.ranks.base_model import (
    load_base_model,
    load_tokenizer,
    require_fitting,
)
from silo_agent.training.ranks.conversation import IGNORED
from silo_agent.training.ranks.devices import loading_device
from silo_agent.training.ranks.packed_attention import compute_blocks_only
from silo_agent.training.ranks.packing import PackedSequence
from silo_agent.training.ranks.quantised import quantising, require_quantised

ADAPTER_NAME = "default"
RESIDUAL_NAME = "residual"
"""What the model calls its two adapters; neither name is in an adapter file."""

_FACTORS = {"both": (".lora_A.", ".lora_B."), "a": (".lora_A.",), "b": (".lora_B.",)}


def load_lora_model(
    model_dir: Path,
    layout: AdapterLayout,
    device: Device,
    *,
    residual: AdapterLayout | None = None,
    trained: TrainedFactors = "both",
    held: HeldAs | None = None,
) -> Any:
    """Base model plus LoRA modules, all of it in one precision but for quantised base weights.

    Without `held` it is the model that is measured: full, float32 on CPU and bfloat16 on CUDA.
    Only the `trained` factors are trainable, never the residual, which is there if its layout is.
    Raises SiloOperatorError when the directory holds no model or it cannot be held so, and
    FederationOperatorError when the model lacks modules of a layout.
    """
    held = held or PINNED[device]
    dtype: torch.dtype = getattr(torch, held.precision)
    base = load_base_model(model_dir, dtype=dtype, **quantising(held, loading_device(device)))
    require_quantised(base, held.base_weights)
    require_fitting(base, load_tokenizer(model_dir))
    if device == "cpu":
        compute_blocks_only()
    try:
        model = get_peft_model(base, _lora_config(layout), autocast_adapter_dtype=False)
        if residual is not None:
            model.add_adapter(RESIDUAL_NAME, _lora_config(residual), autocast_adapter_dtype=False)
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
    _train_only(model, trained)
    return model


def recompute_activations(model: Any, *, partitioned: bool) -> None:
    """Keep only the inputs of layers for the backward pass, which computes the rest again.

    With `partitioned` parameters (ZeRO-3) the older way of torch.utils.checkpoint is taken: the
    newer one compares shapes with those of the first pass, when parameters were put together.
    Raises SiloOperatorError for a model that cannot do it.
    """
    if not model.get_base_model().supports_gradient_checkpointing:
        raise SiloOperatorError(
            "base model of the plan",
            expected="a model that can recompute its activations, for gradient_checkpointing",
            found=f"{type(model.get_base_model()).__name__}, which cannot",
            action="set gradient_checkpointing = false in silo-agent.toml",
        )
    # Frozen embeddings give nothing a gradient is asked for, and the older way needs one.
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": partitioned})


def adapter_parameters(model: Any, adapter: str = ADAPTER_NAME) -> dict[str, torch.nn.Parameter]:
    """LoRA parameters under the tensor names of an adapter file, in the order of the model."""
    ending = f".{adapter}.weight"
    return {
        name.removesuffix(ending) + ".weight": parameter
        for name, parameter in model.named_parameters()
        if name.endswith(ending) and (".lora_A." in name or ".lora_B." in name)
    }


def trained_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """Those of `adapter_parameters` that training changes."""
    return {name: p for name, p in adapter_parameters(model).items() if p.requires_grad}


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
    """Copy adapter tensors into the model; call it before `deepspeed.initialize`."""
    parameters = adapter_parameters(model, adapter)
    with torch.no_grad():
        for name, array in tensors:
            parameters[name].copy_(torch.from_numpy(np.array(array, dtype=np.float32)))


def answer_nll(model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
    """Summed negative log likelihood (nats) of the answer tokens of one sequence, a scalar."""
    return batch_nll(model, [sequence], device)


def batch_nll(
    model: Any, sequences: Sequence[PackedSequence], device: torch.device
) -> torch.Tensor:
    """As `answer_nll`, of several sequences that go through the model side by side.

    Shorter ones are padded at their ends, where nothing counts and nothing before them looks.
    """
    logits, labels, _ = _answer_logits(model, sequences, device)
    return torch.nn.functional.cross_entropy(logits, labels, reduction="sum")


def record_nll(model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
    """As `answer_nll`, for each record of the sequence: float64, in the order of the records."""
    logits, labels, places = _answer_logits(model, [sequence], device)
    nats = torch.nn.functional.cross_entropy(logits, labels, reduction="none").double()
    starts = torch.tensor(sequence.record_starts)
    records = torch.searchsorted(starts, places, right=True) - 1
    sums = torch.zeros(len(starts), dtype=torch.float64, device=device)
    return sums.index_add(0, records.to(device), nats)


def next_logits(model: Any, sequence: PackedSequence, device: torch.device) -> torch.Tensor:
    """Logits (tokens x vocabulary) of what follows each token, in the model's own precision."""
    return batch_logits(model, [sequence], device)[0]


def batch_logits(
    model: Any, sequences: Sequence[PackedSequence], device: torch.device
) -> torch.Tensor:
    """As `next_logits`, of several side by side: sequences x tokens of the longest x vocabulary."""
    logits: torch.Tensor = _forward(model, _of_one_length(sequences), device).logits
    return logits


def prompt_states(
    model: Any, sequence: PackedSequence, places: Sequence[int], device: torch.device
) -> torch.Tensor:
    """Last hidden states (places x hidden, float64 on the CPU) at some tokens of a sequence."""
    options: dict[str, Any] = {"output_hidden_states": True}
    if _accepts(model, "logits_to_keep"):
        options["logits_to_keep"] = 1
    with torch.no_grad():
        states: torch.Tensor = _forward(model, [sequence], device, **options).hidden_states[-1][0]
    return states[torch.tensor(places, device=device)].double().cpu()


def vocabulary_size(model: Any) -> int:
    """How many token ids the model has embeddings for."""
    return int(model.get_input_embeddings().num_embeddings)


def _forward(
    model: Any, rows: Sequence[PackedSequence], device: torch.device, **options: Any
) -> Any:
    """No attention mask and restarting positions make transformers build the block-diagonal mask,
    row by row.

    A model that takes no positions gets none; `packing_check` sees to it that its sequences are
    single conversations.
    """
    if _accepts(model, "position_ids"):
        options["position_ids"] = torch.tensor([row.positions for row in rows], device=device)
    token_ids = torch.tensor([row.token_ids for row in rows], device=device)
    return model(input_ids=token_ids, use_cache=False, **options)


def _answer_logits(
    model: Any, sequences: Sequence[PackedSequence], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (answer tokens x vocabulary, float32), labels, and places of the answer tokens.

    The output layer is computed only where a label of any of the sequences counts: with a
    vocabulary of 49,152 it is a fifth of the arithmetic. Places stay on the CPU.
    """
    rows = _of_one_length(sequences)
    labels = torch.tensor([row.labels[1:] for row in rows])
    of_row, counted = (labels != IGNORED).nonzero(as_tuple=True)
    kept, options = torch.arange(labels.shape[1]), dict[str, torch.Tensor]()
    if _accepts(model, "logits_to_keep"):
        kept = torch.from_numpy(np.unique(counted.numpy()))
        options["logits_to_keep"] = kept.to(device)
    logits = _forward(model, rows, device, **options).logits
    if options and len(rows) == 1:
        chosen = logits[0]  # All that was computed, and no copy of it.
    else:
        chosen = logits[of_row.to(device), torch.searchsorted(kept, counted).to(device)]
    return chosen.float(), labels[of_row, counted].to(device), counted + 1


def _of_one_length(sequences: Sequence[PackedSequence]) -> list[PackedSequence]:
    longest = max(len(sequence.token_ids) for sequence in sequences)
    highest = max(max(sequence.positions) for sequence in sequences)
    return [sequence.padded(longest, highest) for sequence in sequences]


def _lora_config(layout: AdapterLayout) -> LoraConfig:
    return LoraConfig(
        r=layout.rank,
        lora_alpha=layout.alpha,
        use_rslora=layout.use_rslora,
        target_modules=[target.module for target in layout.targets],
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def _require_shapes(model: Any, layout: AdapterLayout, adapter: str) -> None:
    found = {name: tuple(p.shape) for name, p in adapter_parameters(model, adapter).items()}
    if found != expected_shapes(layout):
        wrong = sorted(set(found.items()) ^ set(expected_shapes(layout).items()))[0]
        raise _modules_differ(f"a difference at {wrong[0]}, shape {wrong[1]}")


def _train_only(model: Any, factors: TrainedFactors) -> None:
    model.requires_grad_(False)
    for name, parameter in adapter_parameters(model).items():
        parameter.requires_grad_(any(factor in name for factor in _FACTORS[factors]))


def _accepts(model: Any, option: str) -> bool:
    wrapped = getattr(model, "module", model)
    base = wrapped.get_base_model() if isinstance(wrapped, PeftModel) else wrapped
    return option in inspect.signature(base.forward).parameters


def _modules_differ(found: str) -> FederationOperatorError:
    return FederationOperatorError(
        "adapter layout of the plan",
        expected="modules that the base model has, with the same shapes",
        found=found,
        action="build the plan's adapter targets from the base model that it names",
    )
