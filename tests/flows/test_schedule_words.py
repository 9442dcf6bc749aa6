"""A night's round starts once, also in the two nights of a year that clocks change."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from prefect.server.schemas.schedules import CronSchedule

from aggregator.settings.federation import ScheduleSection
from flows.deployment.schedule_words import clock_change_words, next_start, usual_words

NEW_YEAR = datetime(2027, 1, 1, 12, tzinfo=UTC)
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


@pytest.mark.parametrize(
    ("cron", "zone", "noon_before", "start"),
    [
        ("30 1 * * *", BERLIN, "2027-03-27", "2027-03-28 00:30"),
        ("0 2 * * *", BERLIN, "2027-03-27", "2027-03-28 00:00"),
        ("30 2 * * *", BERLIN, "2027-03-27", "2027-03-28 00:30"),
        ("0 3 * * *", BERLIN, "2027-03-27", "2027-03-28 01:00"),
        ("30 1 * * *", BERLIN, "2027-10-30", "2027-10-30 23:30"),
        ("30 2 * * *", BERLIN, "2027-10-30", "2027-10-31 00:30"),
        ("0 3 * * *", BERLIN, "2027-10-30", "2027-10-31 02:00"),
        ("30 1 * * *", NEW_YORK, "2027-03-13", "2027-03-14 06:30"),
        ("30 2 * * *", NEW_YORK, "2027-03-13", "2027-03-14 06:30"),
        ("30 1 * * *", NEW_YORK, "2027-11-06", "2027-11-07 05:30"),
        ("30 2 * * *", NEW_YORK, "2027-11-06", "2027-11-07 07:30"),
    ],
)
def test_a_night_of_changing_clocks_has_one_round(
    cron: str, zone: str, noon_before: str, start: str
) -> None:
    """Whenever the server looks: it does so again and again, and adds the starts that are new."""
    schedule = CronSchedule(cron=cron, timezone=zone)
    noon = datetime.fromisoformat(f"{noon_before}T12:00+00:00")
    moments = [noon + timedelta(minutes=9) * n for n in range(160)]
    until = noon + timedelta(days=1)
    seen = {at for now in moments for at in asyncio.run(schedule.get_dates(None, now, until))}
    assert {f"{at.astimezone(UTC):%Y-%m-%d %H:%M}" for at in seen} == {start}


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 2 * * *", "59 2 * * *", "*/30 1-3 * * *"])
@pytest.mark.parametrize("day", ["2027-03-27", "2027-10-30"])
def test_the_next_start_is_never_one_that_has_been(cron: str, day: str) -> None:
    """Asked every few minutes of the night: also within the hour that is skipped or repeated."""
    schedule = ScheduleSection(cron=cron, timezone=BERLIN)
    evening = datetime.fromisoformat(f"{day}T21:00+00:00")
    for now in (evening + timedelta(minutes=7) * n for n in range(60)):
        start = next_start(schedule, now)
        assert start is not None and now < start <= now + timedelta(days=1, hours=1)


@pytest.mark.parametrize(
    ("cron", "zone", "words"),
    [
        ("30 2 * * *", "UTC", []),
        ("0 3 * * *", BERLIN, []),
        ("15 2 * * 1", BERLIN, []),
        (
            "30 2 * * *",
            BERLIN,
            [
                "2027-03-28: 02:30 does not exist in Europe/Berlin; the round starts at 00:30 UTC",
                "2027-10-31: 02:30 comes twice in Europe/Berlin; a round starts once, at 00:30 UTC",
            ],
        ),
        (
            "30 1 * * *",
            NEW_YORK,
            [
                "2027-11-07: 01:30 comes twice in America/New_York; "
                "a round starts once, at 05:30 UTC"
            ],
        ),
        (
            "*/30 1-3 * * *",
            NEW_YORK,
            [
                "2027-03-14: 02:00 to 02:30 does not exist in America/New_York; "
                "no round starts for it",
                "2027-11-07: 01:00 to 01:30 comes twice in America/New_York; "
                "a round starts once, at 05:00, 05:30 UTC",
            ],
        ),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            [
                "2027-04-04: 01:45 comes twice in Australia/Lord_Howe; "
                "a round starts once, at 14:45 UTC"
            ],
        ),
    ],
)
def test_a_start_that_is_skipped_or_repeated_is_told(
    cron: str, zone: str, words: list[str]
) -> None:
    assert clock_change_words(ScheduleSection(cron=cron, timezone=zone), NEW_YEAR) == words


@pytest.mark.parametrize(
    ("schedule", "words", "following"),
    [
        (ScheduleSection(), "none", None),
        (ScheduleSection(cron="5 2 * * *"), "every day at 02:05 UTC", "2027-01-02 02:05"),
        (
            ScheduleSection(cron="0 2 * * *", timezone=BERLIN),
            "every day at 02:00 Europe/Berlin",
            "2027-01-02 01:00",
        ),
        (
            ScheduleSection(cron="0 */6 * * *"),
            'cron "0 */6 * * *" in UTC',
            "2027-01-01 18:00",
        ),
        (ScheduleSection(cron="@weekly"), 'cron "@weekly" in UTC', "2027-01-03 00:00"),
    ],
)
def test_a_schedule_in_words(schedule: ScheduleSection, words: str, following: str | None) -> None:
    assert usual_words(schedule) == words
    at = next_start(schedule, NEW_YEAR)
    assert (f"{at:%Y-%m-%d %H:%M}" if at else None) == following
