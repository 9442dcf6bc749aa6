"""How many of a plan's steps are done here, and by when training ends that may do fewer.

A silo says what it can do: `steps_at_most` of `[training]`. Where the plan lets it do fewer, the
time that there is ends training as well, between two steps. Either way step k is what it would have
been with all of them, so so many steps give one adapter, however they came to be so many.
"""

from datetime import datetime, timedelta

from data_contracts.protocol.records.training_recipe import TrainingRecipe
from silo_agent.config import TrainingSection

KEPT_SHARE, MOST_KEPT_SECONDS = 0.1, 300.0
"""Of the time that there is, for gathering, compressing and sending the adapter."""


def steps_here(recipe: TrainingRecipe, training: TrainingSection) -> int:
    """Steps of a round at this silo.

    Never fewer than what counts: a plan that was accepted before the setting was lowered is kept.
    """
    most = training.steps_at_most or recipe.local_steps
    return max(recipe.fewest_steps, min(most, recipe.local_steps))


def own_recipe(recipe: TrainingRecipe, training: TrainingSection) -> TrainingRecipe:
    """The plan's recipe with the steps that are done here."""
    own = {"local_steps": steps_here(recipe, training), "least_steps": None}
    return recipe.model_copy(update=own)


def missing_steps(recipe: TrainingRecipe, training: TrainingSection) -> str | None:
    """Why what is done here cannot count, in numbers; None where it can."""
    most = training.steps_at_most
    if most is None or most >= recipe.fewest_steps:
        return None
    return f"It asks for {recipe.fewest_steps} at the least, and at most {most} are done here."


def steps_words(recipe: TrainingRecipe, training: TrainingSection) -> str:
    """How many of how many, in words."""
    here, planned = steps_here(recipe, training), recipe.local_steps
    return f"{here} of {planned} steps" if here < planned else f"{planned} steps"


def ends_by(now: datetime, seconds: float) -> datetime:
    """When the last step has to be over of a training that has so many seconds from now on."""
    return now + timedelta(seconds=seconds - min(KEPT_SHARE * seconds, MOST_KEPT_SECONDS))
