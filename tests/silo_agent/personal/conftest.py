"""One launch of ranks for all tests of personal adapters."""

import pytest

from tests.silo_agent.personal.opposite_clusters import OppositeClusters

STEPS = 80


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> OppositeClusters:
    return OppositeClusters(tmp_path_factory.mktemp("clusters"), STEPS)
