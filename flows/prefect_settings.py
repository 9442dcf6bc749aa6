"""Prefect's environment, set before Prefect is imported: it reads its settings only once."""

import os
from pathlib import Path

from aggregator.settings import FederationSettings
from data_contracts.errors import FederationOperatorError
from infra.loopback import is_loopback, no_proxy_here


def use_prefect_of(settings: FederationSettings) -> None:
    """Point this process at the federation's Prefect API; no telemetry, no pickled results.

    Prefect's own files lie in the federation's home: the profile of whoever runs the command
    decides nothing, and need not be writable. A Prefect on this machine is never asked by proxy.
    """
    prefect = settings.prefect
    os.environ["PREFECT_HOME"] = str(settings.home / "prefect")
    if is_loopback(prefect.api_url):
        os.environ.update(no_proxy_here())
    os.environ["PREFECT_API_URL"] = prefect.api_url
    os.environ["PREFECT_CLIENT_CSRF_SUPPORT_ENABLED"] = "true"
    os.environ["PREFECT_RESULTS_DEFAULT_SERIALIZER"] = "json"
    os.environ["PREFECT_SERVER_EPHEMERAL_ENABLED"] = "false"
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    os.environ["DO_NOT_TRACK"] = "1"
    if prefect.auth is not None:
        os.environ["PREFECT_API_AUTH_STRING"] = _auth_string(settings.path(prefect.auth))
    if prefect.ca_bundle is not None:
        os.environ["PREFECT_API_SSL_CERT_FILE"] = str(settings.path(prefect.ca_bundle))


def _auth_string(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise FederationOperatorError(
            f"Prefect password {path}",
            expected="a file that holds user:password",
            found=error.strerror or str(error),
            action="write the auth string that the Prefect server was started with",
        ) from None
