"""What `[privacy]` makes of a plan, and what whoever starts a round is told of its cost."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aggregator.planning.privacy import example_cost, silos_that_refuse
from aggregator.settings.federation import FederationSettings, parse_settings
from data_contracts.errors import FederationOperatorError
from data_contracts.privacy.accountant import PrivateSteps, epsilon_of
from flows.federation.admin import FederationTerms, settings_text
from tests.data_contracts.dataset.contract_samples import CONTRACT

TEXT = settings_text(
    FederationTerms(
        "oncology",
        "run-1",
        "c",
        "d",
        "MIT",
        Path("/m"),
        "http://127.0.0.1:4200/api",
        "http://127.0.0.1:9",
    )
)
PRIVACY: dict[str, Any] = {"unit": '"record"', "clipping_norm": "0.5", "noise_multiplier": "1.5"}


def settings(**changes: Any) -> FederationSettings:
    lines = [f"{name} = {value}" for name, value in (PRIVACY | changes).items()]
    return parse_settings("\n".join([TEXT, "[privacy]", *lines, ""]).encode(), Path("/home"))


def test_the_table_is_read_exactly() -> None:
    section = settings(records_per_unit="4").privacy
    assert section is not None
    terms = section.terms
    assert (terms.unit, terms.records_per_unit) == ("record", 4)
    assert (terms.clipping_norm, terms.noise_multiplier) == (Decimal("0.5"), Decimal("1.5"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise_multiplier", "0"),
        ("noise_multiplier", "1e9"),
        ("noise_multiplier", "0.001"),
        ("clipping_norm", "-1"),
        ("clipping_norm", "0"),
        ("unit", '"patient"'),
        ("records_per_unit", "0"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(FederationOperatorError, match=rf"privacy\.{name}"):
        settings(**{name: value})


def test_who_starts_a_round_is_told_what_it_costs_a_silo_of_a_thousand() -> None:
    wanted = settings()
    recipe = wanted.recipe
    steps = PrivateSteps(
        Decimal(recipe.sequences_per_step) / 1000, Decimal("1.5"), recipe.local_steps
    )
    epsilon = epsilon_of([steps], Decimal("0.00001"))
    said = example_cost(wanted)
    assert said is not None
    assert "by the number of records" in said
    assert f"1,000: {epsilon}, 10,000: " in said
    charged = [Decimal(part.split(": ")[1].rstrip(",")) for part in _parts(said)]
    assert charged == sorted(charged, reverse=True), "fewer units, more of each"


def test_noise_of_which_no_number_means_anything_is_refused_before_the_round() -> None:
    with pytest.raises(FederationOperatorError, match=r"raise privacy\.noise_multiplier"):
        example_cost(settings(noise_multiplier="0.01"))


def test_without_the_table_nothing_is_said() -> None:
    plain = parse_settings(TEXT.encode(), Path("/home"))
    assert plain.privacy is None
    assert example_cost(plain) is None


def _parts(said: str) -> list[str]:
    """`100: 0.9` and so on."""
    return said.partition("an epsilon of ")[2].partition(", at a delta")[0].split(", ")


@pytest.mark.parametrize(
    ("asked", "privacy", "why"),
    [
        ("record", None, "has no fl.privacy"),
        ("subject", None, "has no fl.privacy"),
        ("record", "subject", "protects records"),
        (None, "record", "federation.toml no [privacy]"),
        ("subject", "record", None),
        ("subject", "subject", None),
        (None, None, None),
    ],
)
def test_a_silo_that_is_sure_to_refuse_is_named_before_the_round(
    asked: str | None, privacy: str | None, why: str | None, tmp_path: Path
) -> None:
    wanted = (
        parse_settings(TEXT.encode(), Path("/home"))
        if asked is None
        else settings(unit=f'"{asked}"')
    )
    budget = (
        ""
        if privacy is None
        else "  - property: fl.privacy\n"
        f"    value: {{population: them, unit: {privacy}, epsilon: '8', delta: '0.0001'}}\n"
    )
    (tmp_path / "north.yaml").write_text(CONTRACT + budget)
    (tmp_path / "unreadable.yaml").write_text("{")
    said = silos_that_refuse(wanted, tmp_path)
    assert said == [] if why is None else (len(said) == 1 and why in said[0])
    assert all(sentence.startswith("north will refuse") for sentence in said)
