"""Fixtures that start something expensive, once per process, and who runs which file when."""

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from infra.processes.local_processes import stop_recorded
from infra.stack.local_stack import (
    RunningPrefect,
    RunningStorage,
    StoragePorts,
    ensure_auth_string,
    start_object_storage,
    start_prefect_server,
)
from tests.postgres_server import postgresql_url as postgresql_url

# Thousands of tests are collected and none is thrown away, nor is what their imports made: looking
# through it all again and again is a good part of the time of collecting, and some of every test's.
gc.disable()

# What is written durably is synced thousands of times, which takes a disk a good part of the tests'
# time. None of it has to outlive a power cut, so it lies in memory where there is room for it.
IN_MEMORY, ROOM = Path("/dev/shm"), 4 << 30
if os.access(IN_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))

# A shell makes what it starts in the background deaf to Ctrl-C, and so would be whatever the tests
# start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """From here on only what the tests make is looked through."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with real services first: they take longest, so none should begin near the end."""
    slow = {item.path for item in items if item.get_closest_marker("stack")}
    items.sort(key=lambda item: item.path not in slow)


class OneForPrefect(LoadFileScheduling):  # type: ignore[misc]
    """Gives every file as a whole to one process, and all that ask Prefect to the same one.

    Starting a server takes longer than most files of tests. A file that asks for one and is not
    named here still works; its process may only have to start another. Simulated years share
    nothing and take minutes each, so they go out one by one.
    """

    YEARS = "tests/year/test_year.py"

    FILES = (
        "tests/flows/test_distributed_merge.py",
        "tests/flows/test_killed_and_cut_off.py",
        "tests/flows/test_deployment_schedule.py",
        "tests/flows/test_lost_runs.py",
        "tests/infra/test_local_stack.py",
    )

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(self.YEARS):
            return nodeid
        return "Prefect" if nodeid.startswith(self.FILES) else str(super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneForPrefect:
    """Whatever `--dist` says; without `-n` nothing is scheduled."""
    return OneForPrefect(config, log)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPrefect]:
    """A real Prefect server with a password, in a folder that a URL could not spell."""
    state_dir = tmp_path_factory.mktemp("prefect server #1")
    server = start_prefect_server(state_dir, 0, ensure_auth_string(state_dir / "prefect-auth"))
    yield server
    assert stop_recorded(state_dir) == ["prefect-server"]
    assert not server.process.is_running()


@pytest.fixture(scope="session")
def object_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStorage]:
    """A real SeaweedFS on free ports, without buckets; for tests marked `stack`."""
    state_dir = tmp_path_factory.mktemp("object-storage")
    storage = start_object_storage(state_dir, StoragePorts.automatic())
    yield storage
    storage.stop()
