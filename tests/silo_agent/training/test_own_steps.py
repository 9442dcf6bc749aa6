"""How many steps a silo does: by its own setting, by the plan, and by the time that there is."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data_contracts.errors import SiloOperatorError
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.training_recipe import TrainingRecipe
from silo_agent.config import SiloConfig, TrainingSection, parse_config
from silo_agent.policy.policy_file import read_policy
from silo_agent.readiness.steps import steps
from silo_agent.training.capacity import lacks
from silo_agent.training.own_steps import (
    ends_by,
    missing_steps,
    own_recipe,
    steps_here,
    steps_words,
)
from tests.silo_agent.test_policy import PLAN, SILO

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
RECIPE = PLAN.recipe
LESS = RECIPE.model_copy(update={"least_steps": 4})
LESS_PLAN = PLAN.model_copy(update={"recipe": LESS})


TOO_FEW = "It asks for 4 at the least, and at most 3 are done here."


def at_most(steps: int | None) -> TrainingSection:
    return TrainingSection(ranks=1, steps_at_most=steps)


@pytest.mark.parametrize(
    ("most", "here", "words"),
    [
        (None, 10, "10 steps"),
        (11, 10, "10 steps"),
        (10, 10, "10 steps"),
        (9, 9, "9 of 10 steps"),
        (4, 4, "4 of 10 steps"),
    ],
)
def test_a_silo_does_what_it_can_of_what_the_plan_has(
    most: int | None, here: int, words: str
) -> None:
    assert steps_here(LESS, at_most(most)) == here
    assert steps_words(LESS, at_most(most)) == words
    assert missing_steps(LESS, at_most(most)) is None
    own = own_recipe(LESS, at_most(most))
    assert (own.local_steps, own.least_steps) == (here, None)
    assert own.tokens_per_round == LESS.tokens_in(here)
    assert own.model_copy(update={"local_steps": 10, "least_steps": 4}) == LESS


@pytest.mark.parametrize(("recipe", "most", "fewest"), [(LESS, 3, 4), (RECIPE, 9, 10)])
def test_what_is_too_little_is_said_and_what_was_accepted_is_kept(
    recipe: TrainingRecipe, most: int, fewest: int
) -> None:
    said = f"It asks for {fewest} at the least, and at most {most} are done here."
    assert missing_steps(recipe, at_most(most)) == said
    assert steps_here(recipe, at_most(most)) == fewest, "the setting was lowered since"


@pytest.mark.parametrize(("seconds", "kept"), [(100, 10), (3000, 300), (86_400, 300), (1, 0.1)])
def test_a_part_of_the_time_is_kept_for_what_follows(seconds: float, kept: float) -> None:
    assert ends_by(NOW, seconds) == NOW + timedelta(seconds=seconds - kept)


def config(tmp_path: Path, **training: int) -> SiloConfig:
    return SiloConfig.model_validate(
        {
            "silo": SILO,
            "federation": PLAN.federation,
            "storage": {"endpoint_url": "http://127.0.0.1:1"},
            "home": tmp_path,
            "training": training,
        }
    )


def test_what_a_machine_cannot_do_has_its_rule_and_two_numbers(tmp_path: Path) -> None:
    none = read_policy(tmp_path / "none.toml")
    plan = LESS_PLAN
    assert lacks(plan, none, config(tmp_path, ranks=8, steps_at_most=4)) == {}
    assert lacks(plan, none, config(tmp_path, ranks=3, steps_at_most=3)) == {
        "policy.least_steps": TOO_FEW,
        "policy.ranks": "It has 8 sequences, and 3 processes share them here.",
    }
    more = lacks(plan, none, config(tmp_path, ranks=16))
    assert more == {"policy.ranks": "It has 8 sequences, and 16 processes share them here."}


@pytest.mark.parametrize("value", ["0", "-1", "1.5", '"half"'])
def test_a_number_of_steps_is_one(tmp_path: Path, value: str) -> None:
    text = (
        'silo = "north"\nfederation = "oncology"\n[storage]\nendpoint_url = "http://127.0.0.1:1"\n'
        "[training]\nsteps_at_most = "
    )
    assert parse_config(f"{text}7\n".encode(), tmp_path).training.steps_at_most == 7
    with pytest.raises(SiloOperatorError, match=r"training\.steps_at_most in .*: expected"):
        parse_config(f"{text}{value}\n".encode(), tmp_path)


@pytest.mark.parametrize(
    ("plan", "most", "state", "words"),
    [
        (None, None, None, ""),
        (None, 7, "there", "at most 7 in a round"),
        (PLAN, None, None, ""),
        (PLAN, 10, "there", "round 2: 10 steps are done here, 10 have to be"),
        (PLAN, 9, "wrong", "round 2: It asks for 10 at the least, and at most 9 are done here."),
        (LESS_PLAN, None, "there", "round 2: 10 steps are done here, 4 have to be"),
        (LESS_PLAN, 6, "there", "round 2: 6 of 10 steps are done here, 4 have to be"),
        (LESS_PLAN, 3, "wrong", f"round 2: {TOO_FEW}"),
    ],
)
def test_a_check_tells_steps_where_they_are_not_simply_all(
    plan: RoundPlan | None, most: int | None, state: str | None, words: str
) -> None:
    found = [(item.state, item.detail) for item in steps(plan, at_most(most))]
    assert found == ([] if state is None else [(state, words)])
