"""The base model and its tokenizer from a local folder: what was loaded is what the model has.

No model code from the folder is run. Weights that the files lack would be drawn at random, and
trained on without a word; so what `from_pretrained` says it has not found is refused.
"""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records.model_family import CAUSAL_TASK, FamilyTask
from infra.base_model.heads import NotAHeadError, head_of
from infra.base_model.model_class import misfit, model_class, model_options, text_embeddings
from infra.base_model.weights_check import misfit as tokens_misfit
from infra.disk.model_parts import parts_of
from silo_agent.training.ranks.conversation import ChatTokenizer


def load_tokenizer(model_dir: Path) -> ChatTokenizer:
    """The tokenizer beside the base model."""
    tokenizer: ChatTokenizer = _from_local(AutoTokenizer, parts_of(model_dir).tokenizer)
    return tokenizer


def load_base_model(
    model_dir: Path, task: FamilyTask = CAUSAL_TASK, whole: Collection[str] = (), **options: Any
) -> Any:
    """The model of a task; the tensors of its head that are trained `whole` may be missing.

    Raises SiloOperatorError when the folder holds none, or not all of its weights.
    """
    options |= model_options(task)
    model, loaded = _with_loading_info(model_class(task), model_dir, **options)
    if (why := misfit(model, task)) is not None:
        raise _no_model(model_dir, why)
    return _whole_one(model, loaded, model_dir, whole)


def load_whole(factory: Any, folder: Path, **options: Any) -> Any:
    """A model of a class of transformers or diffusers, with all of its weights.

    Raises SiloOperatorError as `load_base_model`.
    """
    model, loaded = _with_loading_info(factory, folder, **options)
    return _whole_one(model, loaded, folder)


def _with_loading_info(factory: Any, folder: Path, **options: Any) -> Any:
    # Ignored there, so that they can be named here.
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    return _from_local(factory, folder, **options)


def _whole_one(model: Any, loaded: Any, folder: Path, head: Collection[str] = ()) -> Any:
    """The model, unless the loading has not found all of its weights but for a `head`."""
    tied = getattr(model, "all_tied_weights_keys", {})
    missing = sorted(set(loaded["missing_keys"]) - set(tied))
    if missing and not (head and _is_head(model, missing, head)):
        raise _not_whole(folder, f"no {missing[0]}, and {len(missing) - 1} more missing")
    if mismatched := sorted(loaded["mismatched_keys"]):
        name, found, expected = mismatched[0]
        raise _not_whole(folder, f"{name} of shape {tuple(found)}, not {tuple(expected)}")
    return model


def _is_head(model: Any, missing: Sequence[str], whole: Collection[str]) -> bool:
    """Whether what is missing is the head that the layout trains, and biases that stay zero."""
    shapes = {name: whole_shape(p) for name, p in model.named_parameters()}
    try:
        head = head_of(missing, shapes, model.base_model_prefix)
    except NotAHeadError:
        return False
    if {target.module for target in head.trained} != set(whole):
        return False
    parameters = dict(model.named_parameters())
    for name in head.zero:
        with together([parameters[name]]), torch.no_grad():
            parameters[name].zero_()
    return True


def whole_shape(parameter: Any) -> tuple[int, ...]:
    """At ZeRO-3 what a rank holds of a parameter has another shape."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def together(parameters: Sequence[Any]) -> AbstractContextManager[Any]:
    """At ZeRO-3, parameters put together inside the block, what rank 0 wrote shared after."""
    if not any(hasattr(parameter, "ds_id") for parameter in parameters):
        return nullcontext()
    from deepspeed import zero

    context: AbstractContextManager[Any] = zero.GatheredParameters(
        list(parameters), modifier_rank=0
    )
    return context


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


def require_fitting(model: Any, tokenizer: Any) -> None:
    """Raise SiloOperatorError when the tokenizer gives ids that the model has no embeddings for."""
    rows, highest = text_embeddings(model).num_embeddings, max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise tokens_misfit("tokenizer of the base model", highest, rows)


def _from_local(factory: Any, model_dir: Path, **options: Any) -> Any:
    try:
        return factory.from_pretrained(
            model_dir, local_files_only=True, trust_remote_code=False, **options
        )
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise _not_whole(model_dir, _words(error)) from error
    except (OSError, ValueError) as error:
        raise _no_model(model_dir, _words(error)) from error


def _words(error: Exception) -> str:
    """The line of a library's message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = next((line for line in lines if "size mismatch" in line), None)
    return (named or (lines[0] if lines else type(error).__name__))[:200]


def _no_model(model_dir: Path, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"base model in {model_dir}",
        expected="a transformers model of the plan's family, with safetensors weights and its "
        "tokenizer",
        found=found,
        action="restore the directory of the base model and check its digest",
    )


def _not_whole(model_dir: Path, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"weights of the base model in {model_dir}",
        expected="every weight of the model, in its shape",
        found=f"{found}: what is missing would be drawn at random",
        action="copy the model again, all of its files, and check its digest",
    )
