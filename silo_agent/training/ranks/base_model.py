"""The base model and its tokenizer from a local folder: what was loaded is what the model has.

No model code from the folder is run. Weights that the files lack would be drawn at random, and
trained on without a word; so what `from_pretrained` says it has not found is refused.
"""

from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from data_contracts.errors import SiloOperatorError
from infra.base_model.folder_check import misfit
from silo_agent.training.ranks.conversation import ChatTokenizer


def load_tokenizer(model_dir: Path) -> ChatTokenizer:
    """The tokenizer beside the base model."""
    tokenizer: ChatTokenizer = _from_local(AutoTokenizer, model_dir)
    return tokenizer


def load_base_model(model_dir: Path, **options: Any) -> Any:
    """The model; raises SiloOperatorError when the folder holds none, or not all of its weights."""
    # Ignored there, so that they can be named here.
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, loaded = _from_local(AutoModelForCausalLM, model_dir, **options)
    tied = getattr(model, "all_tied_weights_keys", {})
    missing = sorted(set(loaded["missing_keys"]) - set(tied))
    if missing:
        raise _not_whole(model_dir, f"no {missing[0]}, and {len(missing) - 1} more missing")
    if mismatched := sorted(loaded["mismatched_keys"]):
        name, found, expected = mismatched[0]
        raise _not_whole(model_dir, f"{name} of shape {tuple(found)}, not {tuple(expected)}")
    return model


def require_fitting(model: Any, tokenizer: Any) -> None:
    """Raise SiloOperatorError when the tokenizer gives ids that the model has no embeddings for."""
    rows, highest = model.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise misfit("tokenizer of the base model", highest, rows)


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
        raise SiloOperatorError(
            f"base model in {model_dir}",
            expected="a transformers model with safetensors weights and its tokenizer",
            found=_words(error),
            action="restore the directory of the base model and check its digest",
        ) from error


def _words(error: Exception) -> str:
    """The line of a library's message that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = next((line for line in lines if "size mismatch" in line), None)
    return (named or (lines[0] if lines else type(error).__name__))[:200]


def _not_whole(model_dir: Path, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"weights of the base model in {model_dir}",
        expected="every weight of the model, in its shape",
        found=f"{found}: what is missing would be drawn at random",
        action="copy the model again, all of its files, and check its digest",
    )
