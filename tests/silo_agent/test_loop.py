"""The agent outlives faults of others, and only one runs on a home directory."""

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from aggregator.feed.reading import read_federation, read_report
from data_contracts.errors import SiloOperatorError, StorageError
from infra.signing_keys import create_key
from silo_agent.agent import poll_once
from silo_agent.federation.marks import Seen, forget_clock, remember_clock
from silo_agent.loop import only_agent, run_agent, running_agent
from tests.simulator.fake_clock import START, FakeClock
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.silo import Behaviour, SimulatedGate, SimulatedTrainer
from tests.tiny_model import make_tiny_model


@pytest.fixture
def federation(tmp_path: Path) -> SimulatedFederation:
    federation = SimulatedFederation(tmp_path, make_tiny_model(tmp_path / "model"))
    for name in ("silo-a", "silo-b"):
        federation.add_silo(name, Behaviour.HONEST)
    federation.found()
    return federation


def test_a_storage_outage_is_waited_out(federation: SimulatedFederation) -> None:
    federation.open()
    silo = federation.silos["silo-a"]
    answers = iter([True] * 5)

    def fail_at_first(operation: str, key: str) -> None:
        if next(answers, False):
            raise StorageError("plans", expected="an answer", found="503", action="try again")

    federation.plans.before = fail_at_first
    before = federation.clock.now()

    class StopsAfterAWhile(FakeClock):
        """Turns the kill switch on when an hour has passed, so that the loop ends."""

        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if (self.now() - before).total_seconds() > 3600:
                (silo.home / "STOP").touch()

    silo.clock = StopsAfterAWhile(before)
    run_agent(silo.agent(FEDERATION, federation.pinned))
    kinds = {info.key.split("/")[4] for info in silo.inbox.list_keys("rounds/")}
    assert {"acceptance", "verdict", "submission"} <= kinds


def test_a_second_agent_on_the_same_home_is_refused(tmp_path: Path) -> None:
    with only_agent(tmp_path):
        assert running_agent(tmp_path) == os.getpid()
        with pytest.raises(SiloOperatorError, match="no other agent"), only_agent(tmp_path):
            pass
    assert running_agent(tmp_path) is None


def test_a_pid_file_without_its_agent_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "agent.pid").write_text(f"{os.getpid()}\n")
    assert running_agent(tmp_path) is None
    with only_agent(tmp_path):
        assert running_agent(tmp_path) == os.getpid()


def test_a_key_that_is_not_the_members_ends_the_agent(
    federation: SimulatedFederation, tmp_path: Path
) -> None:
    silo = federation.silos["silo-a"]
    silo.key = create_key(tmp_path / "other.pem")
    federation.open()
    with pytest.raises(SiloOperatorError, match="signing key of silo-a"):
        run_agent(silo.agent(FEDERATION, federation.pinned))
    assert silo.inbox.list_keys("rounds/") == []


def test_what_was_seen_is_kept_and_a_damaged_file_is_not_reset(
    federation: SimulatedFederation,
) -> None:
    federation.open()
    silo = federation.silos["silo-a"]
    silo.act(FEDERATION, federation.pinned)
    (silo.home / "feed" / "feed.json").write_text("{")
    with pytest.raises(SiloOperatorError, match="replay old plans"):
        run_agent(silo.agent(FEDERATION, federation.pinned))


SEEN = Seen(5, START)
"""The newest entry of the feed when the clock was right."""


def clock_at(home: Path, seconds: float, seen: Seen = SEEN) -> None:
    remember_clock(home, START + timedelta(seconds=seconds), seen)


def test_a_clock_that_went_back_stops_the_agent(tmp_path: Path) -> None:
    clock_at(tmp_path, 0)
    with pytest.raises(SiloOperatorError, match="silo-agent forget-clock"):
        clock_at(tmp_path, -301)
    clock_at(tmp_path, -299)
    with pytest.raises(SiloOperatorError, match="clock"):
        clock_at(tmp_path, -301)


@pytest.mark.parametrize("text", ["", "soon", "[]", "{}", '{"instant": 3, "feed_number": 1}'])
def test_a_damaged_mark_is_not_reset(tmp_path: Path, text: str) -> None:
    (tmp_path / "latest-instant").write_text(text)
    with pytest.raises(SiloOperatorError, match="latest instant"):
        clock_at(tmp_path, 0)
    assert (tmp_path / "latest-instant").read_text() == text


YEAR = 365 * 86_400


def test_a_clock_that_was_ahead_does_not_lock_the_agent_out_until_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock_at(tmp_path, YEAR)
    with pytest.raises(SiloOperatorError, match="ahead before and is right now"):
        clock_at(tmp_path, 60)
    with caplog.at_level("WARNING", logger="silo-agent"):
        clock_at(tmp_path, 3600, Seen(6, START + timedelta(seconds=3500)))
    assert "the clock had been ahead" in caplog.text
    with pytest.raises(SiloOperatorError):
        clock_at(tmp_path, 3000, Seen(6, START + timedelta(seconds=3500)))


@pytest.mark.parametrize(
    "seen",
    [
        SEEN,
        Seen(0, None),
        Seen(6, None),
        Seen(4, START),
        Seen(6, START + timedelta(seconds=YEAR)),
        Seen(6, START + timedelta(seconds=1000)),
        Seen(6, START - timedelta(seconds=2 * YEAR)),
    ],
)
def test_only_a_newer_entry_that_agrees_with_the_clock_shows_it(tmp_path: Path, seen: Seen) -> None:
    clock_at(tmp_path, YEAR)
    with pytest.raises(SiloOperatorError, match="clock"):
        clock_at(tmp_path, 60, seen)


def test_a_person_can_say_that_it_was_ahead(tmp_path: Path) -> None:
    clock_at(tmp_path, YEAR)
    assert forget_clock(tmp_path) == START + timedelta(seconds=YEAR)
    clock_at(tmp_path, 60)
    assert forget_clock(tmp_path) == START + timedelta(seconds=60)
    assert forget_clock(tmp_path) is None


def test_an_agent_whose_clock_was_ahead_goes_on_with_the_next_plan(
    federation: SimulatedFederation,
) -> None:
    plan = federation.open()
    federation.play(plan)
    silo = federation.silos["silo-a"]
    right = federation.clock.now()
    federation.clock.sleep(YEAR)
    silo.act(FEDERATION, federation.pinned)
    federation.clock.sleep(-YEAR)
    with pytest.raises(SiloOperatorError, match="clock"):
        poll_once(silo.agent(FEDERATION, federation.pinned))
    assert federation.clock.now() == right
    federation.clock.sleep(3600)
    second = federation.open(2)
    federation.play(second)
    assert silo.faults == [] or "clock" not in str(silo.faults[-1])
    c = federation.coordinator()
    report = read_report(c, read_federation(c), second)
    assert report is not None
    assert {s.silo: s.outcome for s in report.record.silos}["silo-a"] == "admitted"


def test_what_is_past_its_retention_is_forgotten_once_a_day(
    federation: SimulatedFederation,
) -> None:
    silo = federation.silos["silo-a"]
    agent = silo.agent(FEDERATION, federation.pinned)
    days = []

    class ForgettingGate(SimulatedGate):
        def forget_unused(self) -> None:
            days.append(silo.clock.now().date())

    class ThreeDays(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(3600)
            if self.now() > START + timedelta(days=3):
                (silo.home / "STOP").touch()

    silo.clock = ThreeDays()
    gate = ForgettingGate(silo.contract, silo.behaviour, START, [])
    run_agent(replace(agent, clock=silo.clock, gate=gate))
    assert len(days) == len(set(days)) == 4


def test_what_training_keeps_in_memory_is_looked_after_and_given_back_at_the_end(
    federation: SimulatedFederation,
) -> None:
    silo = federation.silos["silo-a"]
    agent = silo.agent(FEDERATION, federation.pinned)
    calls: list[str] = []

    class Keeping(SimulatedTrainer):
        def give_back_idle(self) -> None:
            calls.append("idle")

        def close(self) -> None:
            calls.append("close")

    class StopsAfterAMinute(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.now() > START + timedelta(minutes=1):
                (silo.home / "STOP").touch()

    trainer = Keeping("silo-a", silo.home / "work", silo.behaviour, lambda: None)
    run_agent(replace(agent, clock=StopsAfterAMinute(), trainer=trainer))
    assert calls.count("idle") >= 60, "at least once a second"
    assert calls[-1] == "close" and calls.count("close") == 1
