"""What of a plan this silo cannot do, by the rule that refuses it, before anything is loaded."""

from data_contracts.protocol.records import RoundPlan
from silo_agent.config import SiloConfig
from silo_agent.policy.policy_file import PolicyFile
from silo_agent.policy.rules import LEAST_STEPS, RANKS, RESOURCES
from silo_agent.training.memory_plan import shortage
from silo_agent.training.own_steps import missing_steps


def lacks(plan: RoundPlan, policy: PolicyFile, config: SiloConfig) -> dict[str, str]:
    """For each such rule, what is asked and what there is, in numbers."""
    found = {
        LEAST_STEPS: missing_steps(plan.recipe, config.training),
        RANKS: _indivisible(plan.recipe.sequences_per_step, config.training.ranks),
        RESOURCES: shortage(plan, policy, config),
    }
    return {rule: numbers for rule, numbers in found.items() if numbers is not None}


def _indivisible(sequences: int, ranks: int) -> str | None:
    if sequences % ranks == 0:
        return None
    return f"It has {sequences} sequences, and {ranks} processes share them here."
