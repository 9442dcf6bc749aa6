"""Clock (c) for Flower: a real SuperLink, ServerApp and silos over its HTTP transport on loopback.

The run is submitted with `flwr run`; the SuperLink starts the ServerApp in a process of its own, as
it does by default. Silos live in two processes (see silos.py), or with `--supernodes` in real
SuperNodes with a ClientApp process for every message. The first round warms up; the median of the
others is reported. No TLS and no fsync, both in Flower's favour. Peak memory is that of the
aggregator: SuperLink, which holds the messages, plus ServerApp.

Flower sends every array as an object in an HTTP request of its own, which cost about 10 ms of the
SuperLink's one interpreter. So each silo packs its 256 tensors into one array, three to four times
as fast (16 silos: 46 s instead of 133 s on two cores); `--tensors` sends them as they are.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from adapters import adapter_megabytes, expected_mean, unpacked
from clock import status_mb

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
PROCESSES = 2
START_SECONDS, ROUNDS_SECONDS = 60.0, 500.0


def main() -> None:
    """Start everything, wait for the ServerApp's figures, check its result, print one line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--silos", type=int, required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--supernodes", action="store_true")
    parser.add_argument("--tensors", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        environment = _environment(directory)
        address = f"127.0.0.1:{_free_port()}"
        link = _start(stack, _superlink_command(address), environment)
        _wait(lambda: _listens(address), START_SECONDS)
        for command in _silo_commands(address, options):
            _start(stack, command, environment)
        _submit(address, options, environment, directory)
        _wait((directory / "server.json").exists, ROUNDS_SECONDS)
        _report(directory, options.silos, status_mb("VmHWM", str(link.pid)))


def _report(directory: Path, silos: int, link_peak_mb: float) -> None:
    with np.load(directory / "merged.npz") as merged:
        expected_mean(silos).check(unpacked(dict(merged)))
    server = json.loads((directory / "server.json").read_text())
    seconds = statistics.median(server["seconds"][1:])
    figures = {
        "seconds": seconds,
        "mb_per_s": silos * adapter_megabytes() / seconds,
        "peak_mb": link_peak_mb + server["peak_mb"],
    }
    sys.stdout.write(json.dumps({key: round(value, 3) for key, value in figures.items()}) + "\n")


def _superlink_command(address: str) -> list[str]:
    host, port = address.split(":")
    command = [f"{BIN}/flower-superlink", "--insecure", "--host", host, "--port", port]
    return [*command, "--disable-runtime-dependency-installation"]


def _silo_commands(address: str, options: argparse.Namespace) -> list[list[str]]:
    if options.supernodes:
        return _supernodes(address, options.silos)
    commands = _silo_hosts(address, options.silos)
    return commands if options.tensors else [[*command, "--packed"] for command in commands]


def _silo_hosts(address: str, silos: int) -> list[list[str]]:
    bounds = [silos * part // PROCESSES for part in range(PROCESSES + 1)]
    script = [sys.executable, str(HERE / "silos.py"), "--address", address]
    return [
        [*script, "--first", str(first), "--last", str(last)] for first, last in pairwise(bounds)
    ]


def _supernodes(address: str, silos: int) -> list[list[str]]:
    command = [f"{BIN}/flower-supernode", "--insecure", "--superlink", address]
    return [
        [*command, "--port", str(_free_port()), "--node-config", f"silo={silo}"]
        for silo in range(silos)
    ]


def _submit(
    address: str, options: argparse.Namespace, environment: dict[str, str], directory: Path
) -> None:
    home = Path(environment["FLWR_HOME"])
    connection = f'[superlink.bench]\naddress = "{address}"\ninsecure = true\n'
    (home / "config.toml").write_text(connection)
    config = f'silos={options.silos} rounds={options.runs + 1} directory="{directory}"'
    command = [f"{BIN}/flwr", "run", str(HERE / "app"), "bench", "--run-config", config]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def _environment(directory: Path) -> dict[str, str]:
    home = directory / "home"
    home.mkdir()
    return os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(HERE.parent),
    }


def _start(
    stack: ExitStack, command: list[str], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    log = stack.enter_context((Path(environment["FLWR_HOME"]) / "log").open("ab"))
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(condition: object, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"nothing after {seconds:g} s")
        time.sleep(0.2)


def _listens(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
