"""A simulated year for each of many seeds; three short ones in every run, 200 in the campaign."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from flows.deployment.schedule_words import next_start
from tests.simulator.year_calendar import NIGHTS, Kind, calendar_of, nights_to_play
from tests.simulator.year_check import Year
from tests.simulator.year_nights import SCHEDULE, starts_of_the_year

pytestmark = pytest.mark.long

SEEDS, ALWAYS = 200, 3
QUIET_NIGHTS_PLAYED = 60
"""In every run, one quiet night in so many is played, and all on which something happens."""


@pytest.mark.parametrize("seed", range(ALWAYS))
def test_a_short_year(year_folder: Path, tiny_model: Path, seed: int) -> None:
    year = Year(seed, year_folder, tiny_model, stride=QUIET_NIGHTS_PLAYED)
    year.play()
    played = nights_to_play(year.calendar, QUIET_NIGHTS_PLAYED)
    assert [night.number for night in year.federation.nights] == sorted(played)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_year(year_folder: Path, tiny_model: Path, seed: int) -> None:
    year = Year(seed, year_folder, tiny_model)
    year.play()
    assert len(year.federation.nights) == NIGHTS


@pytest.mark.parametrize("seed", [*range(20), 4711])
def test_a_calendar_is_drawn_by_its_seed_and_has_everything(seed: int) -> None:
    calendar = calendar_of(seed)
    assert calendar == calendar_of(seed) != calendar_of(seed + 1)
    assert {event.kind for event in calendar} == set(Kind)
    assert all(0 <= event.night < NIGHTS for event in calendar)


def test_starts_are_those_that_the_schedule_names_also_when_clocks_change() -> None:
    starts = starts_of_the_year()
    zone = ZoneInfo("Europe/Berlin")
    changes = [
        (one, other)
        for one, other in pairwise(starts)
        if one.astimezone(zone).utcoffset() != other.astimezone(zone).utcoffset()
    ]
    assert len(changes) == 2
    for one, other in changes:
        assert next_start(SCHEDULE, one) == other
        assert next_start(SCHEDULE, one + timedelta(hours=1)) == other
    assert starts[0] == next_start(SCHEDULE, datetime(2026, 1, 5, 9, tzinfo=UTC))
