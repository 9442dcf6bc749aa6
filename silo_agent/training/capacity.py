"""What of a plan this silo cannot do, by the rule that refuses it, before anything is loaded."""

import logging

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records import RoundPlan
from infra.base_model.linear_modules import NoSuchModelError, linear_modules
from silo_agent.config import SiloConfig
from silo_agent.policy.policy_file import PolicyFile
from silo_agent.policy.rules import FAMILY_MODEL, LEAST_STEPS, RANKS, RESOURCES
from silo_agent.training.memory_plan import shortage
from silo_agent.training.own_steps import missing_steps

log = logging.getLogger("silo-agent")


def lacks(plan: RoundPlan, policy: PolicyFile, config: SiloConfig) -> dict[str, str]:
    """For each such rule, what is asked and what there is, in numbers."""
    found = {
        LEAST_STEPS: missing_steps(plan.recipe, config.training),
        RANKS: _indivisible(plan.recipe.sequences_per_step, config.training.ranks),
        FAMILY_MODEL: _other_model(plan, policy, config),
        RESOURCES: shortage(plan, policy, config),
    }
    return {rule: numbers for rule, numbers in found.items() if numbers is not None}


def _other_model(plan: RoundPlan, policy: PolicyFile, config: SiloConfig) -> str | None:
    """Empty where the plan's base model is none of its family; what the model says stays here.

    Of causal models, which is nearly every model, only loading shows it (`packing_check`).
    """
    model = policy.policy.model(plan.base_model.digest) if policy.policy else None
    if plan.task is None or model is None:
        return None
    try:
        found = linear_modules(config.path(model.path), plan.task)
    except (NoSuchModelError, SiloOperatorError) as error:
        log.warning("base model %s as %s: %s", model.name, plan.task.family, error)
        return ""
    if set(plan.layout.pairs) <= set(found.modules) and plan.layout.wholes == found.head:
        return None
    log.warning("base model %s as %s has other modules", model.name, plan.task.family)
    return ""


def _indivisible(sequences: int, ranks: int) -> str | None:
    if sequences % ranks == 0:
        return None
    return f"It has {sequences} sequences, and {ranks} processes share them here."
