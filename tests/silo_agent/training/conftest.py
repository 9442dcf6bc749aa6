"""One tiny silo for all tests of training."""

import pytest

from tests.silo_agent.training.tiny_jobs import TinySilo, make_tiny_silo


@pytest.fixture(scope="session")
def silo(tmp_path_factory: pytest.TempPathFactory) -> TinySilo:
    return make_tiny_silo(tmp_path_factory.mktemp("silo"))
