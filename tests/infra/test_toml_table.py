"""Values of settings files are of TOML's own types: `true` is no number, nor is a text with one."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from data_contracts.protocol.wire_types import PositiveCount
from infra.disk.toml_files import Seconds, TomlTable, setting_fault


class Rhythm(TomlTable):
    seconds: Seconds = 1.0
    often: bool = False


class Example(TomlTable):
    count: PositiveCount = 1
    maybe: Annotated[int, Field(ge=1)] | None = None
    stage: Literal[1, 2, "auto"] = 1
    either: bool | Literal["auto"] = False
    number_or_not: int | bool = 0
    sizes: tuple[int, ...] = ()
    name: str = ""
    where: Path = Path("here")
    rhythm: Rhythm = Rhythm()


def loaded(text: str) -> Example:
    return Example.model_validate(tomllib.loads(text))


@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        ("count = true", "count", "a number"),
        ("count = '2'", "count", "a number, without quotes"),
        ("count = 2.0", "count", "a whole number"),
        ("where = 3", "where", "a path, in quotes"),
        ("maybe = false", "maybe", "a number"),
        ("stage = true", "stage", "a number"),
        ("[rhythm]\nseconds = true", "rhythm.seconds", "a number"),
        ("[rhythm]\nseconds = '5'", "rhythm.seconds", "a number, without quotes"),
        ("[rhythm]\noften = 1", "rhythm.often", "true or false"),
        ("[rhythm]\noften = 'yes'", "rhythm.often", "true or false, without quotes"),
        ("either = 1", "either", "true or false"),
    ],
)
def test_another_type_is_refused_by_name(text: str, where: str, expected: str) -> None:
    with pytest.raises(ValidationError) as raised:
        loaded(text)
    assert setting_fault(raised.value)[:2] == (where, expected)


def test_what_is_of_its_type_is_taken() -> None:
    found = loaded(
        "count = 3\nmaybe = 2\nstage = 'auto'\neither = 'auto'\nnumber_or_not = true\n"
        "sizes = [1, 2]\nname = '7'\n[rhythm]\nseconds = 5\noften = true"
    )
    assert (found.count, found.maybe, found.stage, found.either) == (3, 2, "auto", "auto")
    assert found.number_or_not is True
    assert (found.sizes, found.name, found.rhythm.seconds) == ((1, 2), "7", 5.0)
    assert found.rhythm.often


def test_the_settings_of_silos_and_federations_are_such_tables() -> None:
    from aggregator.settings.federation import FederationSettings
    from silo_agent.config import SiloConfig, TrainingSection
    from silo_agent.policy.policy_file import Policy

    tables = (FederationSettings, SiloConfig, Policy)
    assert all(issubclass(table, TomlTable) for table in tables)
    with pytest.raises(ValidationError, match="expected a number"):
        TrainingSection.model_validate({"ranks": True})
