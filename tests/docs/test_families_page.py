"""The page about families says what plans, contracts and cards do."""

import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import get_args

import pytest

from aggregator.settings.federation import RecipeSection, TaskSection
from data_contracts.dataset.contract.data_section import read_source
from data_contracts.dataset.contract.strict_yaml import load_yaml
from data_contracts.protocol.records.model_family import CAUSAL, FORMS_OF, LOSS_WORDS, ModelFamily

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
CARDS = ROOT / "aggregator" / "publishing" / "families"
FAMILIES: tuple[ModelFamily, ...] = get_args(ModelFamily)
OWN_PAGES = {path.stem for path in (ROOT / "docs" / "families").glob("*.md")}
WITH_SECTION = [family for family in FAMILIES if f"\n## {family}\n" in PAGE]


def blocks(section: str, language: str) -> list[str]:
    """The code of one language in the section of a family."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_every_family_but_causal_models_has_a_section() -> None:
    others = [family for family in FAMILIES if family != CAUSAL]
    assert [family for family in others if family not in OWN_PAGES] == WITH_SECTION
    assert all(f"](families/{family}.md)" in PAGE for family in OWN_PAGES)
    assert set(others) - set(WITH_SECTION) == OWN_PAGES


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_says_forms_and_losses(family: ModelFamily) -> None:
    (row,) = re.findall(rf"^\| `{family}` \|.*$", PAGE, re.MULTILINE)
    assert all(f"`{form}`" in row for form in FORMS_OF[family])
    assert LOSS_WORDS[family].unit in row


@pytest.mark.parametrize("family", WITH_SECTION)
def test_settings_and_contract_of_a_section_are_read(family: ModelFamily) -> None:
    (settings,) = (tomllib.loads(block) for block in blocks(family, "toml"))
    task = TaskSection.model_validate(settings["task"])
    assert task.learned.family == family
    assert RecipeSection.model_validate(settings["recipe"]).learning_rate < Decimal("0.01")
    (contract,) = (load_yaml(block.encode()) for block in blocks(family, "yaml"))
    properties = {p["property"]: p["value"] for p in contract.get("customProperties", [])}
    classes = {word: word for word in properties.get("fl.classes", [])} or None
    source = read_source(contract, None, classes)
    assert source.record_form.name in FORMS_OF[family]
    assert {word for _, word in source.classes} <= set(task.classes or ())


@pytest.mark.parametrize("family", WITH_SECTION)
def test_the_code_of_a_section_is_that_of_the_card(family: ModelFamily) -> None:
    """The card's is run against a folder of a whole round, in `tests/silo_agent/families`."""
    card = (CARDS / f"{family}.md.j2").read_text(encoding="utf-8")
    code = blocks(family, "python")
    assert code
    assert all(block in card for block in code)
