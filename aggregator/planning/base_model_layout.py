"""Which linear modules of a base model carry LoRA, and their shapes, without loading weights."""

from pathlib import Path

from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.round_plan import AdapterTarget


def adapter_targets(
    model_dir: Path, target_modules: str | tuple[str, ...]
) -> tuple[AdapterTarget, ...]:
    """Targets in model order. "all-linear" means every linear module but the output head.

    The model is built on the meta device from its config alone, so size does not matter. Raises
    FederationOperatorError when the directory is no causal model or no module matches.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model_dir, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _no_layout(str(model_dir), str(error)[:200]) from None
    head = model.get_output_embeddings()
    targets = tuple(
        AdapterTarget(module=name, in_features=module.in_features, out_features=module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module is not head
        and _wanted(name, target_modules)
    )
    if not targets:
        raise _no_layout(f"modules {target_modules} of {model_dir}", "no such linear module")
    return targets


def _wanted(name: str, target_modules: str | tuple[str, ...]) -> bool:
    if isinstance(target_modules, str):
        return True
    return any(name == wanted or name.endswith(f".{wanted}") for wanted in target_modules)


def _no_layout(what: str, found: str) -> FederationOperatorError:
    return FederationOperatorError(
        f"adapter layout of {what}",
        expected="a causal language model of transformers with linear modules to adapt",
        found=found,
        action="correct base_model.path or adapter.target_modules in federation.toml",
    )
