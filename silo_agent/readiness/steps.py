"""Readiness of steps: how many of a plan are done here, where that is not simply all of them."""

from data_contracts.protocol.records import RoundPlan
from silo_agent.config import TrainingSection
from silo_agent.readiness.checklist import Item, there, wrong
from silo_agent.training.own_steps import missing_steps, steps_words

NAME = "steps"


def steps(plan: RoundPlan | None, training: TrainingSection) -> list[Item]:
    """What a setting limits, or the newest plan lets silos leave out; else nothing."""
    if plan is None:
        most = training.steps_at_most
        return [] if most is None else [there(NAME, f"at most {most} in a round")]
    recipe, which = plan.recipe, f"round {plan.round}"
    missing = missing_steps(recipe, training)
    if missing is not None:
        step = "raise steps_at_most in silo-agent.toml, or ask the operator for a lower least_steps"
        return [wrong(NAME, f"{which}: {missing}", step)]
    if training.steps_at_most is None and recipe.least_steps is None:
        return []
    here = steps_words(recipe, training)
    return [there(NAME, f"{which}: {here} are done here, {recipe.fewest_steps} have to be")]
