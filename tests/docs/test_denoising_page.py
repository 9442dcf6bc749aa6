"""The page about denoising says what settings, contracts and cards do."""

import re
import tomllib
from pathlib import Path

import pytest

from aggregator.settings.federation import AdapterSection, RecipeSection, TaskSection
from data_contracts.dataset.contract.data_section import read_source
from data_contracts.dataset.contract.strict_yaml import load_yaml
from data_contracts.protocol.records.model_family import FORMS_OF
from infra.base_model import pipeline_check
from infra.base_model.unet import ADAPTED
from silo_agent.config import TrainingSection
from silo_agent.training.memory_plan import choices
from silo_agent.training.memory_room import Room
from silo_agent.training.ranks.families.denoising import HELDOUT_DRAWS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "families" / "denoising.md").read_text(encoding="utf-8")
CARD = (ROOT / "aggregator" / "publishing" / "families" / "denoising.md.j2").read_text("utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert found
    return found


def test_settings_of_federation_and_silo_are_read() -> None:
    federation, silo = map(tomllib.loads, blocks("toml"))
    assert TaskSection.model_validate(federation["task"]).learned.family == "denoising"
    assert AdapterSection.model_validate(federation["adapter"]).target_modules == "all-linear"
    assert RecipeSection.model_validate(federation["recipe"]).sequence_length == 77
    training = TrainingSection.model_validate(silo["training"])
    assert "auto" not in (
        training.zero_stage,
        training.micro_batch,
        training.gradient_checkpointing,
    )
    (chosen,) = choices(training, 16, Room(None, ""))
    assert chosen.gradient_checkpointing


def test_the_contract_is_of_the_form() -> None:
    (contract,) = (load_yaml(block.encode()) for block in blocks("yaml"))
    assert read_source(contract, None, None).record_form.name in FORMS_OF["denoising"]


def test_the_code_is_that_of_the_card() -> None:
    """The card's is run against a folder of a whole round, in `tests/silo_agent/families`."""
    assert all(block in CARD for block in blocks("python"))


@pytest.mark.parametrize("name", [*ADAPTED, *pipeline_check._OTHER_CONDITIONS])
def test_names_that_the_code_knows_are_named(name: str) -> None:
    assert f"`{name}`" in PAGE


def test_timesteps_of_held_out_pictures_are_as_many_as_it_says() -> None:
    assert HELDOUT_DRAWS == 4 and "have four timesteps each" in PAGE
