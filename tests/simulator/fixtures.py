"""Fixtures that make a simulated federation, for the conftest of whoever needs one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.stack.local_stack import RunningStorage, StoragePorts, start_object_storage
from tests.simulator.federation import SimulatedFederation
from tests.simulator.silo import Behaviour
from tests.tiny_model import make_tiny_model

MakeFederation = Callable[..., SimulatedFederation]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory that nobody changes."""
    return make_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def make_federation(tmp_path: Path, tiny_model: Path) -> MakeFederation:
    """Called with a behaviour by letter: `a=Behaviour.HONEST` makes `silo-a`.

    The one positional argument has fields of `SimulatedFederation`, such as its merge settings.
    """

    def make(
        fields: dict[str, Any] | None = None, /, **behaviours: Behaviour
    ) -> SimulatedFederation:
        federation = SimulatedFederation(tmp_path, tiny_model, **(fields or {}))
        for name, behaviour in behaviours.items():
            federation.add_silo(f"silo-{name}", behaviour)
        federation.found()
        return federation

    return make


@pytest.fixture
def own_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStorage]:
    """A real SeaweedFS of one test: simulated federations all have the same name."""
    directory = tmp_path_factory.mktemp("own-storage")
    running = start_object_storage(directory, StoragePorts.automatic())
    yield running
    running.stop()
