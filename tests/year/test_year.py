"""A simulated year for each of many seeds; three in every run, the others in the campaign."""

from pathlib import Path

import pytest

from tests.simulator.year_calendar import NIGHTS
from tests.simulator.year_check import Year

SEEDS, ALWAYS = 200, 3
QUIET_NIGHTS_PLAYED = 30
"""In every run, one quiet night in so many is played, and every one on which something happens."""


@pytest.mark.parametrize("seed", range(ALWAYS))
def test_a_short_year(year_folder: Path, tiny_model: Path, seed: int) -> None:
    Year(seed, year_folder, tiny_model, stride=QUIET_NIGHTS_PLAYED).play()


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_year(year_folder: Path, tiny_model: Path, seed: int) -> None:
    year = Year(seed, year_folder, tiny_model)
    year.play()
    assert len(year.federation.nights) == NIGHTS
