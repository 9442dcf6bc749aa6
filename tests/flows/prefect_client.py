"""Fixtures of tests that ask a real Prefect server about a federation of their own."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
    PREFECT_HOME,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    temporary_settings,
)

from aggregator.settings.federation import FederationSettings, parse_settings
from flows.federation.admin import FederationTerms, settings_text
from infra.stack.local_stack import RunningPrefect


@pytest.fixture(scope="module")
def client(prefect_server: RunningPrefect) -> Iterator[SyncPrefectClient]:
    environ = prefect_server.env
    settings = {
        PREFECT_HOME: environ["PREFECT_HOME"],
        PREFECT_API_URL: environ["PREFECT_API_URL"],
        PREFECT_API_AUTH_STRING: environ["PREFECT_API_AUTH_STRING"],
        PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: True,
        PREFECT_SERVER_EPHEMERAL_ENABLED: False,
    }
    direct = pytest.MonkeyPatch()
    for name in ("NO_PROXY", "no_proxy", "PREFECT_API_AUTH_STRING"):
        direct.setenv(name, environ[name])
    with temporary_settings(updates=settings), get_client(sync_client=True) as client:
        yield client
    direct.undo()


@pytest.fixture
def federation(prefect_server: RunningPrefect, tmp_path: Path) -> FederationSettings:
    """Settings of a federation that no other test knows."""
    terms = FederationTerms(
        federation=f"f{uuid4().hex[:12]}",
        run="run-1",
        purpose="Testing",
        model_name="tiny",
        model_licence="Apache-2.0",
        model_path=tmp_path / "model",
        prefect_api_url=prefect_server.api_url,
        endpoint_url="http://127.0.0.1:9",
    )
    return parse_settings(settings_text(terms).encode(), tmp_path)
