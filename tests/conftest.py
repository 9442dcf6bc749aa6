"""Fixtures that start something expensive, once per session, and the order of the files."""

import gc
from collections.abc import Iterator

import pytest

from infra.local_stack import RunningStorage, StoragePorts, start_object_storage
from tests.postgres_server import postgresql_url as postgresql_url

# Thousands of tests are collected and none is thrown away, nor is what their imports made: looking
# through it all again and again is a good part of the time of collecting, and some of every test's.
gc.disable()


def pytest_collection_finish() -> None:
    """From here on only what the tests make is looked through."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with real services first: they take longest, so none should begin near the end."""
    slow = {item.path for item in items if item.get_closest_marker("stack")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def object_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStorage]:
    """A real SeaweedFS on free ports, without buckets; for tests marked `stack`."""
    state_dir = tmp_path_factory.mktemp("object-storage")
    storage = start_object_storage(state_dir, StoragePorts.automatic())
    yield storage
    storage.stop()
