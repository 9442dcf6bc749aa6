"""What `[privacy]` makes of a plan, and what whoever starts a round is told of its cost."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aggregator.planning.privacy import example_cost
from aggregator.settings.federation import FederationSettings, parse_settings
from data_contracts.errors import FederationOperatorError
from data_contracts.privacy.accountant import PrivateSteps, epsilon_of
from flows.federation.admin import FederationTerms, settings_text

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
    assert f"a silo of 1,000 records is charged an epsilon of {epsilon} for this round" in said


def test_noise_of_which_no_number_means_anything_is_refused_before_the_round() -> None:
    with pytest.raises(FederationOperatorError, match=r"raise privacy\.noise_multiplier"):
        example_cost(settings(noise_multiplier="0.01"))


def test_without_the_table_nothing_is_said() -> None:
    plain = parse_settings(TEXT.encode(), Path("/home"))
    assert plain.privacy is None
    assert example_cost(plain) is None
