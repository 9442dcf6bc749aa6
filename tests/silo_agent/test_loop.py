"""The agent outlives faults of others, and only one runs on a home directory."""

import os
from pathlib import Path

import pytest

from data_contracts.errors import SiloOperatorError, StorageError
from infra.signing_keys import create_key
from silo_agent.loop import only_agent, run_agent, running_agent
from silo_agent.marks import Marks, load_marks, save_marks, with_clock
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


def test_marks_are_kept_and_a_damaged_file_is_not_reset(tmp_path: Path) -> None:
    save_marks(tmp_path, Marks(feed_number=7, feed_digest="d"))
    assert load_marks(tmp_path).feed_number == 7
    (tmp_path / "marks.json").write_text("{")
    with pytest.raises(SiloOperatorError, match="replay old plans"):
        load_marks(tmp_path)


def test_a_clock_that_went_back_stops_the_agent() -> None:
    marks = with_clock(Marks(), START)
    clock = FakeClock(START)
    clock.sleep(-301)
    with pytest.raises(SiloOperatorError, match="clock"):
        with_clock(marks, clock.now())
    clock.sleep(2)
    assert with_clock(marks, clock.now()) == marks, "five minutes of skew are allowed"
