"""What settings accept as a schedule, Prefect accepts too; what people mistype is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.schedules import CronSchedule

from aggregator.settings.schedule import NICKNAMES, cron_line, time_zone

VALUE = st.integers(0, 61).map(str) | st.sampled_from(["jan", "DEC", "sun", "Fri", "L", "5#2", "?"])
TERM = st.one_of(
    st.just("*"),
    VALUE,
    st.tuples(VALUE, VALUE).map("-".join),
    st.tuples(st.just("*") | VALUE, st.integers(0, 70).map(str)).map("/".join),
)
FIELD = st.lists(TERM, min_size=1, max_size=3).map(",".join)


@given(st.tuples(FIELD, FIELD, FIELD, FIELD, FIELD).map(" ".join))
def test_prefect_takes_what_is_accepted(line: str) -> None:
    try:
        cron_line(line)
    except ValueError:
        return
    assert CronSchedule(cron=line).cron == line


@pytest.mark.parametrize(
    "line",
    [
        *NICKNAMES,
        *("0 2 * * *", "*/5 * * * *", "0 22,23 1-7 jan-mar MON-FRI", "5/15 0-6/2 L 2 *"),
        *("0 2 * * 5#3", "0 2 * * sun#1", "0 2 29 2 *", "0 2 30 2 MON", "0  2 * * 7"),
    ],
)
def test_usual_lines_are_accepted(line: str) -> None:
    assert cron_line(line) == line
    assert CronSchedule(cron=line).cron == line


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "a space between them"),
        ("0 2 * *", "a space between them"),
        ("0 2 * * * *", "a space between them"),
        ("@nightly", "a space between them"),
        ("run at two every night", "minute from 0 to 59"),
        ("60 2 * * *", "minute from 0 to 59"),
        ("-1 2 * * *", "minute from 0 to 59"),
        ("0 24 * * *", "hour from 0 to 23"),
        ("0 2 0 * *", "day of month from 1 to 31"),
        ("0 2 * 13 *", "month from 1 to 12"),
        ("0 2 * * 8", "day of week from 0 to 7"),
        ("0 2 * * 8#2", "day of week from 0 to 7"),
        ("0 2 * * fryday", "day of week from 0 to 7"),
        ("0 2 5-1 * *", "day of month"),
        ("*/0 * * * *", "minute"),
        ("0 2 30 2 *", "a day that some month has"),
        ("0 2 31 4,6,9,11 *", "a day that some month has"),
        ("0 2 * * *\n", "a space between them"),
        ("0 2 * * \u0663", "a space between them"),
    ],
)
def test_mistyped_lines_are_refused(line: str, why: str) -> None:
    with pytest.raises(ValueError, match="expected a cron line such as") as refused:
        cron_line(line)
    assert why in str(refused.value)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Argentina/Ushuaia"])
def test_time_zones_of_the_database(zone: str) -> None:
    assert CronSchedule(cron="0 2 * * *", timezone=time_zone(zone)).timezone == zone


@pytest.mark.parametrize("zone", ["", "CEST", "Europe/berlin", "Europe", "../../etc/passwd", "\0"])
def test_other_time_zones_are_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="IANA"):
        time_zone(zone)
