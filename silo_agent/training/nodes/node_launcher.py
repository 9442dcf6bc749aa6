"""What a launcher of nodes is: it has one command run on each, knows what is gone, and ends it."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from data_contracts.errors import SiloOperatorError
from silo_agent.restarts import ProcessDiedError
from silo_agent.training.processes.rank_processes import kept_environment

MODULE = "silo_agent.training.nodes.node"
START_SECONDS, ASK_SECONDS, GIVE_UP_SECONDS = 30.0, 10.0, 20.0
"""How long a launcher's command may take to start nodes, to tell of them, and to end them: nobody
waits for `silo-agent stop` longer than it says, whatever a queue does."""
ALL = -1
"""Instead of the number of a node: what holds for the launch as a whole."""

_OF_LAUNCHERS = (
    *("SSH_AUTH_SOCK", "KRB5CCNAME", "SLURM_CONF", "MUNGE_SOCKET", "KUBECONFIG"),
    # By these kubectl finds the cluster from within a pod.
    *("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"),
)


class NotLaunchedError(ProcessDiedError):
    """A launcher refused or did not answer, which may be a bad minute of a queue or a cluster."""

    wait_seconds: ClassVar[float] = 5.0


class StartedNodes(Protocol):
    """Nodes that were asked for."""

    def lost(self) -> Mapping[int, str]:
        """Nodes that can no longer work, by number or `ALL`, and what is known of each."""
        ...

    def waiting(self) -> Mapping[int, str]:
        """What is known already of nodes that may not have come, by number or `ALL`."""
        ...

    def end(self) -> None:
        """Give the nodes up; those that see the meeting place end by themselves before."""
        ...


class NodeLauncher(Protocol):
    """Runs the node's command on as many machines as it was made for."""

    def start(self, place: Path) -> StartedNodes:
        """Ask for the nodes, which meet at `place`; SiloOperatorError where that cannot be done."""
        ...


def node_command(place: Path) -> list[str]:
    """What runs on each node, from the same Python as here."""
    return [sys.executable, "-P", "-m", MODULE, str(place)]


def launcher_environment() -> dict[str, str]:
    """Credentials of the agent stay with the agent, also where a launcher would pass them on."""
    passed = {name: os.environ[name] for name in _OF_LAUNCHERS if name in os.environ}
    return {**kept_environment(), **passed}


def last_line(log: Path) -> str:
    """Of what a launcher logged, for a message."""
    try:
        text = log.read_text(errors="replace").strip()
    except OSError:
        text = ""
    return text.splitlines()[-1][:300] if text else "(none)"


def answer(
    command: Sequence[str], action: str, text: str | None = None, seconds: float = START_SECONDS
) -> str:
    """What a command of the launcher's printed.

    Raises NotLaunchedError where it fails or takes longer than `seconds`, and SiloOperatorError
    where it cannot be run.
    """
    kind: type[SiloOperatorError] = NotLaunchedError
    try:
        done = subprocess.run(
            command,
            input=text,
            env=launcher_environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        words = (error.stderr or error.stdout).strip().splitlines() or ["(it said nothing)"]
        found = f"exit code {error.returncode}: {words[-1][:300]}"
    except subprocess.TimeoutExpired:
        found = f"no end within {seconds:.0f} s"
    except OSError as error:
        kind = SiloOperatorError
        found = error.strerror or type(error).__name__
    else:
        return done.stdout.strip()
    raise kind(
        f"launcher of the nodes, `{command[0]}`",
        expected="it to do what it was asked for",
        found=found,
        action=action,
    )
