"""What the coordinator's commands say while the storage is away: one message, within seconds."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flows.federation.admin import init_federation
from infra.stack.local_ports import free_port
from infra.stack.local_stack import RunningStorage
from tests.flows.test_cli import terms

pytestmark = [pytest.mark.long, pytest.mark.stack]

COMMANDS = ("round status", "round go-on", "round abort --reason x", "federation show")
WATCH_SECONDS = 60


@pytest.fixture(scope="module")
def home(object_storage: RunningStorage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation whose storage was there when it was founded."""
    folder = tmp_path_factory.mktemp("away")
    founded = replace(terms(object_storage.endpoint_url, folder), federation="away")
    init_federation(folder / "fed", founded, object_storage)
    settings = folder / "fed" / "federation.toml"
    nobody = f"http://127.0.0.1:{free_port()}"
    settings.write_text(settings.read_text().replace(object_storage.endpoint_url, nobody))
    return folder / "fed"


def started(home: Path, command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *command.split(), "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_at_once_that_the_storage_is_away(home: Path, command: str) -> None:
    said, _ = started(home, command).communicate(timeout=WATCH_SECONDS)
    assert said.startswith("error: object storage at http://127.0.0.1:"), said
    assert "To fix it: check that it runs" in said
    assert said.count("error:") == 1 and "Traceback" not in said


def test_watching_waits_with_a_line(home: Path) -> None:
    watch = started(home, "round watch")
    assert watch.stdout is not None
    first = watch.stdout.readline()
    time.sleep(1)
    assert watch.poll() is None
    watch.kill()
    watch.communicate()
    assert first.startswith("waiting for object storage at http://127.0.0.1:"), first
