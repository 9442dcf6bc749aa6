"""Agents that share one machine: who trains, and who gives memory back to whom."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest

from data_contracts.errors import SiloOperatorError
from infra.clock import SystemClock
from silo_agent.training.shared_machine import ROOM_SECONDS, SharedMachine
from tests.simulator.fake_clock import START, FakeClock

MORE_THAN_ANY_MACHINE = 10**16


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "train"


@pytest.fixture
def keeper(lock: Path) -> Iterator[ExitStack]:
    """Another agent, whose idle ranks are in memory until the stack is closed."""
    lock.parent.mkdir()
    with ExitStack() as kept:
        kept.enter_context(SharedMachine(lock, SystemClock()).kept())
        yield kept


def test_one_trains_and_another_waits_until_it_is_stopped(lock: Path) -> None:
    waited: list[int] = []
    clock = FakeClock(START)
    with SharedMachine(lock, clock).turn(lambda: None, lambda: False):
        other = SharedMachine(lock, clock)
        with (
            pytest.raises(SiloOperatorError, match=r"turn to train: .*found a stop"),
            other.turn(lambda: waited.append(1), lambda: len(waited) == 3),
        ):
            pass
    assert len(waited) == 3
    with SharedMachine(lock, clock).turn(lambda: None, lambda: True):
        assert len(waited) == 3, "a turn that is free is taken at once"


def test_memory_that_is_lacking_is_asked_for_and_given_back(lock: Path, keeper: ExitStack) -> None:
    seen: list[bool] = []

    class Asking(SystemClock):
        """While one waits, another looks whether its memory is wanted, and gives it back."""

        def sleep(self, seconds: float) -> None:
            looks = Thread(target=lambda: seen.append(other.is_memory_wanted))
            looks.start()
            looks.join()
            keeper.close()

    other = SharedMachine(lock, SystemClock())
    assert not other.is_memory_wanted
    SharedMachine(lock, Asking()).make_room(MORE_THAN_ANY_MACHINE)
    assert seen == [True]
    assert not other.is_memory_wanted, "once there is room"


@pytest.mark.parametrize(("needed", "asks"), [(1, False), (MORE_THAN_ANY_MACHINE, True)])
def test_memory_is_asked_for_only_where_it_lacks_and_not_for_ever(
    lock: Path, keeper: ExitStack, needed: int, asks: bool
) -> None:
    clock = FakeClock(START)
    SharedMachine(lock, clock).make_room(needed)
    waited = (clock.now() - START).total_seconds()
    assert waited == (ROOM_SECONDS if asks else 0)


def test_memory_of_a_gpu_is_always_asked_for(lock: Path, keeper: ExitStack) -> None:
    clock = FakeClock(START)
    SharedMachine(lock, clock).make_room(None)
    assert clock.now() > START
    keeper.close()
    waited = clock.now()
    SharedMachine(lock, clock).make_room(None)
    assert clock.now() == waited, "nobody keeps any"


def test_an_agent_that_is_alone_asks_nobody() -> None:
    alone = SharedMachine(None, FakeClock(START))
    with alone.kept(), alone.turn(lambda: None, lambda: False):
        alone.make_room(MORE_THAN_ANY_MACHINE)
        assert not alone.is_memory_wanted
