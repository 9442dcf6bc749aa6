"""A Prefect server of its own on loopback, with a password and without telemetry.

Prefect itself is never imported here: the server is a child process, and clients get their
settings as environment variables.
"""

import base64
import os
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from infra.disk.durable_files import write_durably
from infra.loopback import LOOPBACK, direct_opener, no_proxy_here
from infra.processes.local_processes import LocalProcess, refuse_second, start_process, wait_until
from infra.stack.local_ports import free_port, require_free

READY_TIMEOUT_SECONDS = 120
DEFAULT_PORT = 4200
PROCESS_NAME = "prefect-server"
DATABASE_NAME = "prefect.db"
PORT_OPTION = "--prefect-port"

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}


@dataclass(frozen=True)
class RunningPrefect:
    """A server and what clients need: `env` holds the password, so it is not shown."""

    api_url: str
    ui_url: str
    process: LocalProcess
    env: Mapping[str, str] = field(repr=False)

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return urlsplit(self.ui_url).port or DEFAULT_PORT

    def stop(self) -> None:
        """Stop within seconds; its SQLite database is transactional, so SIGKILL is safe too."""
        self.process.stop()


def start_prefect_server(
    state_dir: Path, port: int, auth_string: str, *, keep: bool = False
) -> RunningPrefect:
    """Start the server and wait until it answers with `auth_string` (`user:password`).

    `port` 0 chooses a free one. Raises ConsortiaError when the port is taken or the server does
    not come up. With `keep` it outlives this process.
    """
    state_dir = state_dir.resolve()
    refuse_second(PROCESS_NAME, state_dir)
    port = port or free_port()
    require_free(port, "the Prefect server", PORT_OPTION)
    api_url = f"http://{LOOPBACK}:{port}/api"
    client = client_env(state_dir, api_url, auth_string)
    process = start_process(
        PROCESS_NAME,
        [
            sys.executable,
            "-m",
            "prefect",
            "server",
            "start",
            "--host",
            LOOPBACK,
            "--port",
            f"{port}",
        ],
        state_dir,
        env=_base_env() | client | _server_env(state_dir, auth_string),
        keep=keep,
    )
    wait_until(lambda: _accepts(api_url, auth_string), process, READY_TIMEOUT_SECONDS)
    return RunningPrefect(api_url, f"http://{LOOPBACK}:{port}", process, client)


def auth_path(state_dir: Path) -> Path:
    """File with the `user:password` of the Prefect server of `state_dir`."""
    return state_dir / "prefect-auth"


def ensure_auth_string(path: Path) -> str:
    """The `user:password` in `path` (mode 0600), generated on first use."""
    if not path.exists():
        write_durably(path, f"consortia:{secrets.token_urlsafe(24)}".encode(), mode=0o600)
    return path.read_text(encoding="utf-8").strip()


def client_env(state_dir: Path, api_url: str, auth_string: str) -> dict[str, str]:
    """Settings of a client that talks to this server, keeps its files below `state_dir`, and
    fails loudly instead of starting a server of its own when this one is gone."""
    return {
        **_QUIET,
        **no_proxy_here(),
        "PREFECT_HOME": str(state_dir / "prefect"),
        "PREFECT_API_URL": api_url,
        "PREFECT_API_AUTH_STRING": auth_string,
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
        # Results would be pickled by default, and unpickling runs what the bytes say.
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    }


def database_url(state_dir: Path) -> str:
    """The database that Prefect would use by itself, below `state_dir`, as a URL.

    Prefect puts the path into its URL as it is, which with a `?` or a `%` names another file. As
    SQLite's own URI it is quoted.
    """
    return f"sqlite+aiosqlite:///file:{quote(str(state_dir / 'prefect' / DATABASE_NAME))}?uri=true"


def _server_env(state_dir: Path, auth_string: str) -> dict[str, str]:
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url(state_dir),
        "PREFECT_SERVER_API_AUTH_STRING": auth_string,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        # In memory, the leases of a killed server would keep their slots taken in the database.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
            "prefect.server.concurrency.lease_storage.filesystem"
        ),
    }


def _base_env() -> dict[str, str]:
    """The environment without Prefect settings of the user's own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def _accepts(api_url: str, auth_string: str) -> bool:
    """Whether the server is healthy and takes the password; /health alone asks for none."""
    token = base64.b64encode(auth_string.encode()).decode()
    headers = {"Authorization": f"Basic {token}"}
    opener = direct_opener()
    try:
        for path in ("health", "admin/version"):
            request = urllib.request.Request(f"{api_url}/{path}", headers=headers)  # noqa: S310
            with opener.open(request, timeout=5) as answer:
                if answer.status != 200:
                    return False
    except OSError:
        return False
    return True
