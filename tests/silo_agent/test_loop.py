"""The agent outlives faults of others, and only one runs on a home directory."""

import os
from pathlib import Path

import pytest

from data_contracts.errors import SiloOperatorError, StorageError
from data_contracts.wire_types import INSTANT_FORMAT
from infra.signing_keys import create_key
from silo_agent.loop import only_agent, run_agent, running_agent
from silo_agent.marks import remember_clock
from tests.simulator.fake_clock import START, FakeClock
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.silo import Behaviour
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


def test_a_clock_that_went_back_stops_the_agent(tmp_path: Path) -> None:
    remember_clock(tmp_path, START)
    clock = FakeClock(START)
    clock.sleep(-301)
    with pytest.raises(SiloOperatorError, match="clock"):
        remember_clock(tmp_path, clock.now())
    clock.sleep(2)
    remember_clock(tmp_path, clock.now())
    assert (tmp_path / "latest-instant").read_text() == START.strftime(INSTANT_FORMAT)
    (tmp_path / "latest-instant").write_text("soon")
    with pytest.raises(SiloOperatorError, match="latest instant"):
        remember_clock(tmp_path, clock.now())
