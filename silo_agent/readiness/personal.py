"""Readiness of the personal adapter: what `[personal]` costs of memory, time and disk."""

from pathlib import Path

from data_contracts.errors import ConsortiaError
from data_contracts.protocol.records import RoundPlan
from silo_agent.config import SiloConfig
from silo_agent.personal.job import personal_layout
from silo_agent.personal_settings import PersonalSection
from silo_agent.readiness.checklist import Item, there
from silo_agent.readiness.facts import Facts
from silo_agent.training.memory import parameters_of
from silo_agent.training.memory_plan import memory_plan
from silo_agent.training.memory_room import gigabytes
from silo_agent.training.own_steps import steps_here

NAME = "personal adapter"
PARAMETER_BYTES = 4


def personal(facts: Facts) -> list[Item]:
    """Nothing where it is off."""
    section, plan = facts.config.personal, facts.plan
    if not section.is_on:
        return []
    if plan is not None and plan.shares_a:
        return [
            there(
                NAME,
                f"{section.method} is not trained in {plan.run}, whose rule is shared_a: this "
                "silo's own B with the A of all is its adapter",
            )
        ]
    when = "while the others are waited for: the time of a training again"
    if not section.every_round:
        when = "only when `silo-agent personalise` is run"
    detail = f"{section.method}, {when}"
    if plan is not None:
        detail += _costs(facts, plan)
    is_told = section.share_loss and section.every_round
    told = "is told with the other losses" if is_told else "stays here"
    return [there(NAME, f"{detail}; its loss {told}, the adapter never leaves")]


def _costs(facts: Facts, plan: RoundPlan) -> str:
    """Of one round, in words; of memory only where the model's shape can be read."""
    config = facts.config
    parameters = parameters_of(personal_layout(config.personal.method, plan.layout_of(config.silo)))
    words = f", {steps_here(plan.recipe, config.training)} steps in round {plan.round}"
    words += f"; {PARAMETER_BYTES * parameters / 1e6:,.1f} MB of its own parameters"
    policy = facts.policy.policy
    allowed = policy.model(plan.base_model.digest) if policy is not None else None
    if allowed is None:
        return words
    try:
        folder = config.path(allowed.path)
        more = _bytes(folder, plan, config) - _bytes(folder, plan, _without(config))
    except (ConsortiaError, OSError):
        return words
    return f"{words}, {gigabytes(max(0, more))} more of a training process at its fullest"


def _bytes(folder: Path, plan: RoundPlan, config: SiloConfig) -> int:
    return memory_plan(folder, plan, config).shown.estimate.total_bytes


def _without(config: SiloConfig) -> SiloConfig:
    return config.model_copy(update={"personal": PersonalSection()})
