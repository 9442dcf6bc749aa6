"""Which linear modules of a base model carry LoRA, and their shapes, without loading weights."""

import logging
from pathlib import Path

from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from infra.base_model.linear_modules import NoSuchModelError, linear_modules

log = logging.getLogger("consortia")


def adapter_targets(
    model_dir: Path, target_modules: str | tuple[str, ...]
) -> tuple[AdapterTarget, ...]:
    """Targets in model order. "all-linear" means every linear module but the output head.

    The model itself says it, as it does at each silo, so size does not matter. Raises
    FederationOperatorError when the directory is no causal model or no module matches.
    """
    try:
        linear = linear_modules(model_dir)
    except NoSuchModelError as error:
        raise _no_layout(str(model_dir), str(error)) from None
    for end, why in linear.left_out.items():
        log.warning("modules called %s carry no LoRA: %s", end, why)
    targets = tuple(each for each in linear.modules if _wanted(each.module, target_modules))
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
