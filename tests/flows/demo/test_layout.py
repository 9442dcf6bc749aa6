"""A demo that is started again: its ports, its configurations, one at a time."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_contracts.errors import ConsortiaError
from flows.demo.layout import DemoPaths, demo_ports, only_demo
from infra.disk.durable_files import write_durably
from infra.loopback import LOOPBACK
from infra.stack.stack_ports import StackPorts

HOLDER = (
    "import sys, time\nfrom pathlib import Path\n"
    "from flows.demo.layout import DemoPaths, only_demo\n"
    "with only_demo(DemoPaths(Path(sys.argv[1]))):\n    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


@pytest.fixture
def paths(tmp_path: Path) -> DemoPaths:
    return DemoPaths(tmp_path / "state")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as one:
        yield one


def set_up(paths: DemoPaths, ports: StackPorts) -> None:
    storage = f'endpoint_url = "http://{LOOPBACK}:{ports.s3}"\n'
    prefect = f'api_url = "http://{LOOPBACK}:{ports.prefect}/api"\n'
    write_durably(paths.home / "federation.toml", (storage + prefect).encode())
    for silo in ("a", "b"):
        write_durably(paths.silo(silo) / "silo-agent.toml", storage.encode())


def test_ports_are_kept_while_they_are_free(paths: DemoPaths) -> None:
    first = demo_ports(paths)
    assert first.s3 != first.prefect
    assert demo_ports(paths) == first
    assert StackPorts(**json.loads((paths.stack / "ports.json").read_text())) == first


@pytest.mark.parametrize("which", ["s3", "s3 grpc", "prefect"])
def test_a_port_that_somebody_took_is_replaced_everywhere(
    paths: DemoPaths, listener: socket.socket, which: str
) -> None:
    first = demo_ports(paths)
    set_up(paths, first)
    taken = {"s3": first.s3, "s3 grpc": first.s3 + 10_000, "prefect": first.prefect}[which]
    listener.bind((LOOPBACK, taken))
    listener.listen()
    second = demo_ports(paths)
    assert second.are_free() and not first.are_free()
    assert demo_ports(paths) == second
    operator = (paths.home / "federation.toml").read_text()
    assert operator.splitlines() == [
        f'endpoint_url = "http://{LOOPBACK}:{second.s3}"',
        f'api_url = "http://{LOOPBACK}:{second.prefect}/api"',
    ]
    for silo in ("a", "b"):
        assert f":{second.s3}" in (paths.silo(silo) / "silo-agent.toml").read_text()


def test_a_second_demo_is_refused_until_the_first_ended(paths: DemoPaths) -> None:
    command = [sys.executable, "-c", HOLDER, str(paths.state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        refused = pytest.raises(ConsortiaError, match=r"no other one that runs; found one\.")
        with refused, only_demo(paths):
            pass
        os.kill(first.pid, signal.SIGKILL)
    with only_demo(paths):
        assert paths.state.is_dir()


def test_a_state_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    refused = pytest.raises(ConsortiaError, match=r"state/demo\.lock: expected a writable disk")
    with refused, only_demo(DemoPaths(tmp_path / "state")):
        pass
