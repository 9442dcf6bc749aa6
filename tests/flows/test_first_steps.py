"""A stack that is stopped and started, a federation on it, and a Prefect that goes away.

One stack, one story in order, with the commands as they are typed, in a narrow terminal.
"""

import json
import os
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aggregator.settings.federation import load_settings
from infra.loopback import LOOPBACK
from infra.processes.local_processes import recorded_processes, stop_recorded
from infra.stack.stack_ports import remembered_ports
from tests.loopback_server import answering
from tests.printed_commands import printed_commands, require_pasteable
from tests.tiny_model import make_tiny_model

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]

GONE_SECONDS = 120


class Operator:
    """A federation operator with a stack in a folder whose name has a space."""

    def __init__(self, folder: Path) -> None:
        self.state, self.home = folder / "the stack", folder / "the federation"
        self.model = make_tiny_model(folder / "model")

    def type(self, *arguments: str, fails: bool = False) -> str:
        """A command's output; what it prints to paste can be pasted."""
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments],
            env=os.environ | {"COLUMNS": "40"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said
        assert "Traceback" not in said
        require_pasteable(said)
        return said

    def start(self, *ports: str, fails: bool = False) -> str:
        return self.type("stack", "start", "--state", str(self.state), *ports, fails=fails)

    def stop(self) -> str:
        return self.type("stack", "stop", "--state", str(self.state))

    def settings(self) -> dict[str, str]:
        written = tomllib.loads((self.home / "federation.toml").read_text())
        return {
            "endpoint_url": written["storage"]["endpoint_url"],
            "api_url": written["prefect"]["api_url"],
            "auth": written["prefect"]["auth"],
        }

    def addresses(self) -> dict[str, str]:
        """What the settings should say, from what the stack remembers."""
        ports = remembered_ports(self.state)
        assert ports is not None
        return {
            "endpoint_url": ports.endpoint_url,
            "api_url": ports.prefect_api_url,
            "auth": str(self.state.resolve() / "prefect-auth"),
        }


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = Operator(tmp_path_factory.mktemp("first steps"))
    yield operator
    stop_recorded(operator.state)


def test_a_new_federation_has_the_addresses_and_the_password_of_its_stack(
    operator: Operator,
) -> None:
    said = operator.start("--s3-port", "0", "--prefect-port", "0")
    assert str(operator.state / "prefect-auth") in said
    said = operator.type(
        *("federation", "init", "--home", str(operator.home), "--federation", "first-steps"),
        *("--purpose", "Testing, in a narrow terminal", "--stack", str(operator.state)),
        *("--model", str(operator.model), "--model-name", "tiny", "--model-licence", "Apache-2.0"),
    )
    assert operator.settings() == operator.addresses()
    typed = [" ".join(command[:3]) for command in printed_commands(said)]
    assert "consortia federation add-silo" in typed
    assert any(command.startswith("silo-agent init") for command in typed)


def test_before_the_first_plan_it_is_said_what_is_waited_for(operator: Operator) -> None:
    said = operator.type("round", "status", "--home", str(operator.home))
    assert "has no plan yet" in said
    assert "not registered" in said
    assert ["consortia", "deploy", "--home", str(operator.home)] in printed_commands(said)
    said = operator.type("round", "start", "--home", str(operator.home), fails=True)
    assert f"`consortia deploy --home '{operator.home}'`" in said
    operator.type("deploy", "--register-only", "--home", str(operator.home))
    said = operator.type("round", "status", "--home", str(operator.home))
    assert "Nothing serves the deployment" in said
    said = operator.type("round", "start", "--home", str(operator.home))
    followed = ["consortia", "round", "watch", "--home", str(operator.home), "--round", "1"]
    assert followed in printed_commands(said)
    page = operator.addresses()["api_url"].removesuffix("/api")
    assert f"{page}/runs/flow-run/" in said


def test_a_missing_password_says_where_its_text_lies(operator: Operator) -> None:
    settings = operator.home / "federation.toml"
    right = settings.read_text()
    settings.write_text(right.replace(operator.settings()["auth"], "keys/nothing"))
    for command in ("deploy", "round start"):
        said = operator.type(*command.split(), "--home", str(operator.home), fails=True)
        assert "STATE/prefect-auth" in said
        assert f"`consortia stack use --state STATE --home '{operator.home}'`" in said
    said = operator.type("round", "status", "--home", str(operator.home))
    assert "STATE/prefect-auth" in said
    operator.type("stack", "use", "--state", str(operator.state), "--home", str(operator.home))
    assert settings.read_text() == right


@pytest.mark.parametrize("answer", [b"", b'"text"', b"{}", b"[]", b"<html>"])
def test_whatever_else_listens_is_not_taken_for_prefect(operator: Operator, answer: bytes) -> None:
    settings = operator.home / "federation.toml"
    right = settings.read_text()
    with answering(lambda _: (200, answer)) as address:
        url = f"{address}/api"
        settings.write_text(right.replace(operator.addresses()["api_url"], url))
        said = operator.type("deploy", "--home", str(operator.home), fails=True)
    settings.write_text(right)
    assert said.splitlines()[-1].startswith(f"error: Prefect at {url}: expected an answer; found")
    assert "serving" not in said


def test_a_runner_whose_prefect_is_killed_waits_and_serves_again(operator: Operator) -> None:
    log = operator.home / "deploy.log"
    with log.open("wb") as file:
        runner = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "deploy", "--home", str(operator.home)],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait(lambda: "serving" in log.read_text(), 300)
        (prefect,) = (p for p in recorded_processes(operator.state) if p.name == "prefect-server")
        prefect.kill()
        _wait(lambda: "waiting for Prefect at http://" in log.read_text(), GONE_SECONDS)
        assert runner.poll() is None
        operator.start()
        _wait(lambda: log.read_text().count("serving") == 2, GONE_SECONDS)
        assert runner.poll() is None
    finally:
        runner.kill()
    said = log.read_text()
    assert "answers again, after" in said
    assert "Traceback" not in said
    require_pasteable(said)


def test_the_ports_stay_and_where_they_change_it_is_said_who_has_to_follow(
    operator: Operator,
) -> None:
    before = operator.addresses()
    assert "consortia stack stop" in operator.start(fails=True), "both run"
    (storage,) = (p for p in recorded_processes(operator.state) if p.name == "object-storage")
    storage.kill()
    operator.start()
    assert operator.addresses() == before == operator.settings()
    operator.stop()
    operator.start()
    assert operator.addresses() == before == operator.settings()
    operator.stop()
    ports = remembered_ports(operator.state)
    assert ports is not None
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((LOOPBACK, ports.prefect))
        taken.listen()
        said = operator.start(fails=True)
    assert f"port {ports.prefect}" in said
    assert f"process {os.getpid()}" in said
    assert "--prefect-port" in said
    said = operator.start("--s3-port", "0", "--prefect-port", "0")
    assert operator.addresses() != before
    assert f'endpoint_url = "{operator.addresses()["endpoint_url"]}"' in said
    assert any(command[:3] == ["consortia", "stack", "use"] for command in printed_commands(said))
    said = operator.type("round", "start", "--home", str(operator.home), fails=True)
    assert "consortia stack use" in said
    operator.type("stack", "use", "--state", str(operator.state), "--home", str(operator.home))
    assert operator.settings() == operator.addresses()
    assert load_settings(operator.home).purpose == "Testing, in a narrow terminal"
    operator.type("round", "status", "--home", str(operator.home))
    assert json.loads((operator.state / "ports.json").read_text()).keys() == {"s3", "prefect"}


def _wait(look: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.5)
