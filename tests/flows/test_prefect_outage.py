"""A runner outlives its Prefect server; what is not the server's absence ends it."""

import logging
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from data_contracts.errors import FederationOperatorError
from flows.deployment.prefect_faults import PrefectUnavailableError
from flows.deployment.prefect_outage import RETRY_SECONDS, SAY_EVERY_TRIES, serve_through_outages
from flows.deployment.runner_output import without_traces
from tests.simulator.fake_clock import FakeClock

START = datetime(2026, 3, 1, tzinfo=UTC)
AWAY = PrefectUnavailableError("Prefect", expected="an answer", found="none", action="start it")
REFUSES = FederationOperatorError("Prefect", expected="an answer", found="401", action="correct it")


def answers(*said: Exception | None) -> Callable[[], None]:
    """A step that gives these answers in turn."""
    left: Iterator[Exception | None] = iter(said)

    def step() -> None:
        fault = next(left)
        if fault is not None:
            raise fault

    return step


def lines_of(serve: Callable[[], None], ask: Callable[[], None]) -> list[str]:
    said: list[str] = []
    serve_through_outages(serve, ask, FakeClock(START), said.append)
    return said


def test_a_runner_that_is_stopped_is_not_started_again() -> None:
    assert lines_of(answers(None), answers()) == []


def test_it_is_served_again_once_prefect_answers() -> None:
    said = lines_of(answers(AWAY, AWAY, None), answers(AWAY, None, None))
    assert said == [
        "waiting for Prefect: found none; start it",
        f"Prefect answers again, after {2 * RETRY_SECONDS} s",
        "waiting for Prefect: found none; start it",
        f"Prefect answers again, after {RETRY_SECONDS} s",
    ]


def test_a_night_of_waiting_says_so_once_a_minute() -> None:
    tries = 3 * SAY_EVERY_TRIES
    said = lines_of(answers(AWAY, None), answers(*[AWAY] * tries, None))
    assert len([line for line in said if line.startswith("waiting")]) == 4
    assert RETRY_SECONDS * SAY_EVERY_TRIES == 60


@pytest.mark.parametrize("fault", [REFUSES, KeyError("x")])
def test_whatever_else_ends_the_runner(fault: Exception) -> None:
    with pytest.raises(type(fault)):
        lines_of(answers(fault), answers())
    with pytest.raises(type(fault)):
        lines_of(answers(AWAY), answers(fault))


@pytest.mark.parametrize(
    ("name", "fault", "shown"),
    [
        ("prefect.FlowRunCancellingObserver", EOFError("the websocket broke"), False),
        ("prefect.runner", ConnectionRefusedError(), False),
        ("prefect.runner", ValueError("a fault of our own"), True),
    ],
)
def test_only_the_traces_of_a_prefect_that_is_gone_are_left_out(
    name: str, fault: Exception, shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logging.StreamHandler(sys.stdout)
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        with without_traces():
            logger.error("it ended", exc_info=fault)
    finally:
        logger.removeHandler(handler)
    said = capsys.readouterr().out
    assert "it ended" in said
    assert ("Error" in said) == shown
