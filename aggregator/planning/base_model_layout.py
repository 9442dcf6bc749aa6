"""What of a base model is trained, and its shapes, without loading weights."""

import logging
from pathlib import Path

from data_contracts.errors import FederationOperatorError, SiloOperatorError
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.model_family import CAUSAL_TASK, FamilyTask
from infra.base_model.linear_modules import NoSuchModelError, linear_modules

log = logging.getLogger("consortia")


def adapter_targets(
    model_dir: Path, target_modules: str | tuple[str, ...], task: FamilyTask = CAUSAL_TASK
) -> tuple[AdapterTarget, ...]:
    """Targets in model order. "all-linear" means every linear module but the output layer; behind
    them come the tensors of a head that the model lacks for its task, which are trained whole.

    The model itself says it, as it does at each silo, so size does not matter. Raises
    FederationOperatorError when the directory is no model of the family or no module matches.
    """
    try:
        linear = linear_modules(model_dir, task)
    except NoSuchModelError as error:
        raise _no_layout(str(model_dir), str(error), task) from None
    except SiloOperatorError as error:
        raise FederationOperatorError(
            error.problem, expected=error.expected, found=error.found, action=error.action
        ) from None
    for end, why in linear.left_out.items():
        log.warning("modules called %s carry no LoRA: %s", end, why)
    targets = tuple(each for each in linear.modules if _wanted(each.module, target_modules))
    if not targets:
        raise _no_layout(f"modules {target_modules} of {model_dir}", "no such linear module", task)
    if linear.head:
        named = ", ".join(target.module for target in linear.head)
        log.info("trained whole, because the base model lacks it: %s", named)
    return targets + linear.head


def _wanted(name: str, target_modules: str | tuple[str, ...]) -> bool:
    if isinstance(target_modules, str):
        return True
    return any(name == wanted or name.endswith(f".{wanted}") for wanted in target_modules)


def _no_layout(what: str, found: str, task: FamilyTask) -> FederationOperatorError:
    return FederationOperatorError(
        f"adapter layout of {what}",
        expected=f"a model of the family {task.family}, with linear modules to adapt",
        found=found,
        action="correct base_model.path, task.family or adapter.target_modules in federation.toml",
    )
