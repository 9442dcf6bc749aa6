"""A real PostgreSQL on loopback for tests, started once per session and stopped by its own pid.

PostgreSQL refuses to run as root, so it then runs as `nobody`, in a folder of that user. Where it
is not installed, `available_databases` leaves SQLite alone.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.loopback import LOOPBACK
from infra.stack.local_ports import free_port

USER = "consortia"
PASSWORD = "pa55-of-the-tests"
START_SECONDS = 60


def is_postgresql_installed() -> bool:
    """Whether the three programs that a server needs are on PATH."""
    return all(shutil.which(program) for program in ("initdb", "pg_ctl", "postgres"))


def available_databases() -> tuple[str, ...]:
    """Names of the databases that tests run on here."""
    return ("sqlite", "postgresql") if is_postgresql_installed() else ("sqlite",)


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """URL of an empty database for SQLAlchemy with psycopg; skips where there is no PostgreSQL."""
    if not is_postgresql_installed():
        pytest.skip("PostgreSQL is not installed")
    with (
        tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder,
        running_postgresql(Path(folder)) as url,
    ):
        yield url


@contextmanager
def running_postgresql(folder: Path) -> Iterator[str]:
    """A server whose files are in `folder`; yields its URL and stops it afterwards."""
    owner = _owner()
    if owner:
        shutil.chown(folder, **owner)
    data = folder / "data"
    password_file = folder / "password"
    password_file.write_text(PASSWORD, encoding="utf-8")
    access = ["-U", USER, "--auth=scram-sha-256", f"--pwfile={password_file}"]
    _run(["initdb", "-D", str(data), "--encoding=UTF8", "--no-sync", *access], folder)
    port = free_port()
    settings = f"-p {port} -h {LOOPBACK} -k {folder} -c fsync=off"
    control = ["pg_ctl", "-D", str(data), "-w", "-t", str(START_SECONDS)]
    _run([*control, "-l", str(folder / "log"), "-o", settings, "start"], folder)
    try:
        yield f"postgresql+psycopg://{USER}:{PASSWORD}@{LOOPBACK}:{port}/postgres"
    finally:
        _run([*control, "-m", "immediate", "stop"], folder)


def _owner() -> dict[str, Any]:
    """As whom the server runs, when it cannot run as us."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


def _as_owner() -> dict[str, Any]:
    owner = _owner()
    return {**owner, "extra_groups": []} if owner else {}


def _run(command: list[str], folder: Path) -> None:
    with (folder / "commands.log").open("ab") as log:
        subprocess.run(
            command,
            cwd=folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=2 * START_SECONDS,
            **_as_owner(),
        )
