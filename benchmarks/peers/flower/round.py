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
import statistics
import sys
import tempfile
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from adapters import adapter_megabytes, expected_mean, unpacked
from clock import status_mb
from superlink import (
    BIN,
    HERE,
    free_port,
    own_environment,
    served,
    start,
    submit,
    wait,
)

PROCESSES = 2
ROUNDS_SECONDS = 500.0


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
        variables = own_environment(directory)
        address, link = served(stack, variables)
        for command in _silo_commands(address, options):
            start(stack, command, variables)
        config = f'silos={options.silos} rounds={options.runs + 1} directory="{directory}"'
        submit(HERE / "app", address, variables, config)
        wait((directory / "server.json").exists, ROUNDS_SECONDS)
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
        [*command, "--port", str(free_port()), "--node-config", f"silo={silo}"]
        for silo in range(silos)
    ]


if __name__ == "__main__":
    main()
