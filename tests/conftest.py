"""Fixtures that start something expensive, once per session."""

from collections.abc import Iterator

import pytest

from infra.local_stack import RunningStorage, StoragePorts, start_object_storage
from tests.postgres_server import postgresql_url as postgresql_url


@pytest.fixture(scope="session")
def object_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStorage]:
    """A real SeaweedFS on free ports, without buckets; for tests marked `stack`."""
    state_dir = tmp_path_factory.mktemp("object-storage")
    storage = start_object_storage(state_dir, StoragePorts.automatic())
    yield storage
    storage.stop()
