"""Prefect's environment, set before Prefect is imported: it reads its settings only once."""

import os
from pathlib import Path

from aggregator.settings.federation import FederationSettings
from data_contracts.errors import FederationOperatorError
from infra.loopback import is_loopback, no_proxy_here
from infra.terminal import command_line


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
        os.environ["PREFECT_API_AUTH_STRING"] = _auth_string(settings, settings.path(prefect.auth))
    if prefect.ca_bundle is not None:
        os.environ["PREFECT_API_SSL_CERT_FILE"] = str(settings.path(prefect.ca_bundle))


def _auth_string(settings: FederationSettings, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise FederationOperatorError(
            f"Prefect password {path}",
            expected="a file that holds user:password",
            found=error.strerror or str(error),
            action=_where_the_password_is(settings),
        ) from None


def _where_the_password_is(settings: FederationSettings) -> str:
    """The embedded stack has its own file, which a federation had better point at."""
    use = command_line("consortia", "stack", "use", "--state", "STATE", "--home", settings.home)
    text = "write the user:password that the Prefect server was started with into that file"
    if not is_loopback(settings.prefect.api_url):
        return f"{text}, mode 0600"
    return f"{text}; that of an embedded stack is in its STATE/prefect-auth, and `{use}` names it"
