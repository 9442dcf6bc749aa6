"""Nodes that a remote shell reaches: a hostfile as DeepSpeed reads it, one command a machine."""

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from infra.processes.exit_codes import described_exit
from silo_agent.training.nodes.node_launcher import last_line, launcher_environment, node_command
from silo_agent.training.processes.rank_log import open_private

GRACE_SECONDS = 3.0
_LINE = re.compile(r"^(?P<host>[A-Za-z0-9_][A-Za-z0-9_.@:-]*)\s+slots=(?P<slots>\d+)$")


@dataclass(frozen=True)
class Host:
    """A machine and how many ranks it takes."""

    name: str
    slots: int


def read_hostfile(path: Path, nodes: int, ranks_per_node: int) -> tuple[Host, ...]:
    """The hosts of a file with lines such as `gpu-1 slots=4`; SiloOperatorError for others."""
    expected = f"{nodes} lines such as `gpu-1 slots={ranks_per_node}`"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, expected, getattr(error, "strerror", "") or str(error)) from None
    hosts = []
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].strip()
        found = _LINE.match(words)
        if words and found is None:
            raise _unusable(path, expected, f"{words[:100]!r} in line {number}")
        if found is not None:
            hosts.append(Host(found["host"], int(found["slots"])))
    if len({host.name for host in hosts}) != len(hosts):
        raise _unusable(path, expected, "a host that is named twice")
    if len(hosts) != nodes:
        raise _unusable(path, expected, f"{len(hosts)} hosts")
    for host in hosts:
        if host.slots != ranks_per_node:
            raise _unusable(path, expected, f"slots={host.slots} of {host.name}")
    return tuple(hosts)


@dataclass(frozen=True)
class Hosts:
    """Launches over `remote`, a command such as ssh that takes a host and a line for its shell."""

    remote: tuple[str, ...]
    hosts: tuple[Host, ...]
    logs: Path

    def start(self, place: Path) -> "StartedHosts":
        """As `NodeLauncher`."""
        logs = [self.logs / f"log-shell-{number}.txt" for number in range(len(self.hosts))]
        started = StartedHosts(self, [], logs)
        try:
            for number, host in enumerate(self.hosts):
                started.shells.append(self._shell(host, number, place, logs[number]))
        except OSError as error:
            started.end()
            raise SiloOperatorError(
                "remote shell of the nodes",
                expected=f"the command {self.remote[0]}",
                found=error.strerror or type(error).__name__,
                action="install it, or correct [training.nodes.hosts] remote in silo-agent.toml",
            ) from None
        return started

    def _shell(self, host: Host, number: int, place: Path, log: Path) -> subprocess.Popen[bytes]:
        line = shlex.join([*_python_path(), *node_command(place), str(number)])
        with os.fdopen(open_private(log), "wb") as output:
            return subprocess.Popen(
                [*self.remote, host.name, line],
                env=launcher_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )


@dataclass(frozen=True)
class StartedHosts:
    """The shells that run; the nodes behind them end with their meeting place."""

    launcher: Hosts
    shells: list[subprocess.Popen[bytes]]
    logs: list[Path]

    def lost(self) -> Mapping[int, str]:
        """As `StartedNodes`."""
        codes = {number: shell.poll() for number, shell in enumerate(self.shells)}
        return {number: self._words(number, code) for number, code in codes.items() if code}

    def waiting(self) -> Mapping[int, str]:
        """As `StartedNodes`."""
        commands = [f"{self.launcher.remote[0]} {host.name}" for host in self.launcher.hosts]
        return {
            number: f"{command}: its last line: {last_line(log)}"
            for number, (command, log) in enumerate(zip(commands, self.logs, strict=True))
        }

    def end(self) -> None:
        """As `StartedNodes`."""
        deadline = time.monotonic() + GRACE_SECONDS
        for shell in self.shells:
            with suppress(subprocess.TimeoutExpired):
                shell.wait(max(0.0, deadline - time.monotonic()))
            if shell.poll() is None:
                # With what it started itself, such as the ProxyCommand of ssh.
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()

    def _words(self, number: int, code: int) -> str:
        command = f"{self.launcher.remote[0]} {self.launcher.hosts[number].name}"
        return f"{command}: {described_exit(code)}; its last line: {last_line(self.logs[number])}"


def _python_path() -> list[str]:
    path = os.environ.get("PYTHONPATH")
    return ["env", f"PYTHONPATH={path}"] if path else []


def _unusable(path: Path, expected: str, found: str) -> SiloOperatorError:
    return SiloOperatorError(
        f"hostfile {path}",
        expected=expected,
        found=found,
        action="correct it, or count and ranks in silo-agent.toml",
    )
