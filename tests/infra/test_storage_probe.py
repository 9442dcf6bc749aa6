"""The probe names each promise that a storage, or the rights in it, break."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from data_contracts.errors import StorageError
from infra.storage.object_store import AccessDeniedError, Lock, RefusedRequestError
from infra.storage.probe import probe_inbox, probe_locks, probe_storage, require_promises
from infra.storage.promises import RACES
from tests.simulator.memory_bucket import InMemoryBucket

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
SILO = frozenset({"retain", "delete_version", "bypass"})
COORDINATOR = frozenset({"put_once", "put", "delete_version", "bypass"})


class Party:
    """What one side may not do."""

    def __init__(self, denied: frozenset[str]) -> None:
        self.denied = denied

    def __call__(self, operation: str, key: str) -> None:
        if operation in self.denied:
            raise AccessDeniedError(key, expected="the right", found="403", action="none")


def inbox_of(denied: frozenset[str] = SILO, *, versioned: bool = True) -> InMemoryBucket:
    return InMemoryBucket("inbox", before=Party(denied), versioned=versioned)


def test_an_inbox_with_the_right_rights_passes() -> None:
    inbox = inbox_of()
    outcome = probe_inbox(inbox, NOW, role="silo")
    require_promises(outcome)
    assert {check.promise for check in outcome.checks} == {
        "exact ranged reads",
        "a written object is listed",
        "a missing key is absent",
        "an earlier version stays",
        "a silo deletes no version",
        "a silo locks nothing",
    }
    inbox.before = Party(COORDINATOR)
    locks = probe_locks(inbox, NOW, role="coordinator")
    assert locks is not None and locks.held and len(locks.checks) == 3
    assert len(inbox.locks) == 1


@pytest.mark.parametrize(
    ("may", "promise"),
    [
        ("delete_version", "a silo deletes no version"),
        ("retain", "a silo locks nothing"),
        ("bypass", "a silo deletes no version"),
    ],
)
def test_a_silo_that_may_too_much_is_told(may: str, promise: str) -> None:
    outcome = probe_inbox(inbox_of(SILO - {may}), NOW, role="silo")
    with pytest.raises(StorageError, match=rf"expected {promise}; found this credential may"):
        require_promises(outcome)


@pytest.mark.parametrize(
    ("may", "promise"),
    [
        ("bypass", "the coordinator passes over no lock"),
        ("put_once", "the coordinator writes in no inbox"),
    ],
)
def test_a_coordinator_that_may_too_much_is_told(may: str, promise: str) -> None:
    inbox = inbox_of()
    probe_inbox(inbox, NOW, role="silo")
    inbox.before = Party(COORDINATOR - {may})
    outcome = probe_locks(inbox, NOW, role="coordinator")
    assert outcome is not None
    with pytest.raises(StorageError, match=rf"expected {promise}"):
        require_promises(outcome)


def test_a_coordinator_that_may_not_lock_and_a_storage_that_does_not_are_told() -> None:
    inbox = inbox_of()
    probe_inbox(inbox, NOW, role="silo")
    inbox.before = Party(COORDINATOR | {"retain"})
    denied = probe_locks(inbox, NOW, role="coordinator")
    assert denied is not None and not denied.checks[0].held
    inbox.before, inbox.keeps_locks = Party(COORDINATOR), False
    ignored = probe_locks(inbox, NOW, role="coordinator")
    assert ignored is not None and "no lock on a version" in ignored.checks[0].detail


def test_a_second_probe_with_a_clock_that_is_behind_finds_the_same() -> None:
    inbox = inbox_of()
    probe_inbox(inbox, NOW, role="silo")
    inbox.before = Party(COORDINATOR)
    for now in (NOW, NOW - timedelta(minutes=3), NOW + timedelta(minutes=3)):
        outcome = probe_locks(inbox, now, role="coordinator")
        assert outcome is not None and outcome.held, outcome


def test_an_inbox_with_versions_and_without_locks_lets_nobody_lock() -> None:
    """There the coordinator keeps copies, and the silo has nothing to be told."""

    class Lockless(InMemoryBucket):
        def retain(self, key: str, version: str, lock: Lock, *, bypass: bool = False) -> None:
            raise RefusedRequestError(key, expected="a lock", found="400", action="none")

    inbox = Lockless("inbox", before=Party(frozenset({"delete_version", "bypass"})), versioned=True)
    assert probe_inbox(inbox, NOW, role="silo").held
    inbox.before = Party(COORDINATOR)
    locks = probe_locks(inbox, NOW, role="coordinator")
    assert locks is not None and not locks.held


def test_where_no_silo_has_been_yet_nothing_can_be_tried() -> None:
    assert probe_locks(inbox_of(COORDINATOR), NOW, role="coordinator") is None


def test_an_inbox_without_versions_is_one_for_copies() -> None:
    inbox = inbox_of(versioned=False)
    outcome = probe_inbox(inbox, NOW, role="silo")
    assert outcome.held
    assert "create once" in {check.promise for check in outcome.checks}
    inbox.before = Party(COORDINATOR)
    locks = probe_locks(inbox, NOW, role="coordinator")
    assert locks is not None and locks.checks[0].detail == "inbox has no versions"


def test_a_versioned_inbox_need_not_create_once() -> None:
    """Ceph 16 lets every racing create win there; nothing rests on it."""

    class Ceph(InMemoryBucket):
        def put_once(self, key: str, data: bytes) -> None:
            self.put(key, data)

    inbox = Ceph("inbox", before=Party(SILO), versioned=True)
    assert probe_inbox(inbox, NOW, role="silo").held
    plans = Ceph("plans")
    with pytest.raises(StorageError, match="create once, one winner of racing creates"):
        require_promises(probe_storage(plans, role="coordinator"))


@pytest.mark.parametrize("race", range(RACES))
def test_a_storage_where_two_creates_win_in_one_race_only_does_not_pass(race: int) -> None:
    class Racy(InMemoryBucket):
        def put_once(self, key: str, data: bytes) -> None:
            if key.endswith(f"race-{race}"):
                self.put(key, data)
            else:
                super().put_once(key, data)

    outcome = probe_storage(Racy("plans"), role="coordinator")
    broken = [check for check in outcome.checks if not check.held]
    assert [check.promise for check in broken] == ["one winner of racing creates"]
    assert "16 of 16 racing creates won" in broken[0].detail


def test_racing_creates_set_out_together() -> None:
    """Each waits for the others, so a store that takes its time cannot serve them one by one."""
    under_way, most = 0, 0
    lock = threading.Lock()

    class Slow(InMemoryBucket):
        def put_once(self, key: str, data: bytes) -> None:
            nonlocal under_way, most
            with lock:
                under_way += 1
                most = max(most, under_way)
            time.sleep(0.05)
            with lock:
                under_way -= 1
            super().put_once(key, data)

    assert probe_storage(Slow("plans"), role="coordinator").held
    assert most >= 12
