"""An agent that starts before its storage waits, and says what it waits for."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_contracts.errors import StorageError
from infra.storage.object_store import (
    AccessDeniedError,
    StorageUnavailableError,
    UnusableCredentialError,
)
from silo_agent.federation.storage_wait import probe_when_reachable
from tests.silo_agent.ready_silo import ReadySilo
from tests.simulator.fake_clock import START, FakeClock
from tests.simulator.memory_bucket import InMemoryBucket


class Away:
    """Fails until the clock shows `minutes` later; a silo's rights after that."""

    def __init__(self, clock: FakeClock, minutes: float, error: type[StorageError]) -> None:
        self.clock, self.seconds, self.error = clock, minutes * 60, error

    def __call__(self, operation: str, key: str) -> None:
        if (self.clock.now() - START).total_seconds() < self.seconds:
            raise self.error(key, expected="an answer", found="refused", action="look")
        if operation in ("retain", "delete_version", "bypass"):
            raise AccessDeniedError(key, expected="the right", found="403", action="none")


def test_an_outage_is_waited_out_with_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    away = Away(clock, 3, StorageUnavailableError)
    inbox = InMemoryBucket("inbox", before=away, versioned=True)
    with caplog.at_level(logging.WARNING, "silo-agent"):
        outcome = probe_when_reachable(inbox, clock, lambda: False, role="north")
    assert outcome is not None and outcome.held, outcome
    assert (clock.now() - START).total_seconds() == 180
    assert len(caplog.messages) == 3
    for line in caplog.messages:
        assert line.startswith("waiting for the storage since 2026-01-05 09:00:00 UTC:")
        assert "keep these promises" not in line


def test_a_storage_that_goes_away_while_it_is_probed_is_probed_again() -> None:
    clock = FakeClock()
    failed: list[str] = []
    rights = Away(clock, 0, StorageUnavailableError)

    def before(operation: str, key: str) -> None:
        if key.endswith("range") and not failed:
            failed.append(key)
            raise StorageUnavailableError(key, expected="an answer", found="503", action="look")
        rights(operation, key)

    inbox = InMemoryBucket("inbox", before=before, versioned=True)
    outcome = probe_when_reachable(inbox, clock, lambda: False, role="north")
    assert failed and outcome is not None and outcome.held


def test_the_kill_switch_ends_the_wait_within_a_second() -> None:
    clock = FakeClock()
    inbox = InMemoryBucket("inbox", before=Away(clock, 10, StorageUnavailableError))
    stopped_after = 90

    def is_stopped() -> bool:
        return (clock.now() - START).total_seconds() >= stopped_after

    assert probe_when_reachable(inbox, clock, is_stopped, role="north") is None
    assert (clock.now() - START).total_seconds() == stopped_after


@pytest.mark.parametrize("error", [UnusableCredentialError, AccessDeniedError, StorageError])
def test_what_no_wait_mends_is_said_at_once(error: type[StorageError]) -> None:
    clock = FakeClock()
    inbox = InMemoryBucket("inbox", before=Away(clock, 10, error))
    with pytest.raises(error):
        probe_when_reachable(inbox, clock, lambda: False, role="north")
    assert clock.now() == START


@pytest.mark.long
def test_the_agent_itself_stays_up(tmp_path: Path) -> None:
    """Nothing listens on the port that this silo's configuration names."""
    silo = ReadySilo(tmp_path)
    credentials = silo.home / "keys" / "storage-credentials.toml"
    credentials.write_text('access_key = "a"\nsecret_key = "b"\n')
    credentials.chmod(0o600)
    command = [sys.executable, "-m", "silo_agent.cli", "run", "--home", str(silo.home)]
    log = tmp_path / "log"
    with log.open("w") as file:
        agent = subprocess.Popen(command, stdout=file, stderr=file, env=dict(os.environ))
    try:
        deadline = time.monotonic() + 90
        while "waiting for the storage" not in log.read_text() and time.monotonic() < deadline:
            assert agent.poll() is None, log.read_text()
            time.sleep(0.2)
        assert "not reachable: expected an answer" in log.read_text()
        (silo.home / "STOP").touch()
        assert agent.wait(30) == 0
    finally:
        agent.kill()
    assert "promises" not in log.read_text()
