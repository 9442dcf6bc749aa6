"""One node: `python -m silo_agent.training.nodes.node DIRECTORY [NUMBER]`, started by a launcher.

It starts the ranks of this machine as an agent does that is alone, and ends with them: when one
fails, when the agent asks for it, and when nothing was heard of the agent for too long. Without
NUMBER it is the one that Slurm or Kubernetes gave this process.
"""

import os
import socket
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from infra.processes.exit_codes import DONE, FAULT, ORPHANED
from silo_agent.training.nodes.meeting_place import (
    Beats,
    Ended,
    MeetingPlace,
    NodesLaunch,
    Pulse,
    node_log,
    own_packages,
)
from silo_agent.training.nodes.network_interface import require_interface
from silo_agent.training.nodes.reaching import call_all_nodes
from silo_agent.training.processes.machine_launch import GroupShape, machine_launch
from silo_agent.training.processes.rank_processes import RankProcesses, rank_processes
from silo_agent.training.processes.torchrun import failed_ranks
from silo_agent.training.run_files import exit_code_of

NUMBERS = ("SLURM_NODEID", "JOB_COMPLETION_INDEX")
"""Variables in which Slurm and Kubernetes say which node this is."""

MEETING_VARIABLE = "CONSORTIA_MEETING"
FIRST_RANK_VARIABLE, ALL_RANKS_VARIABLE = "CONSORTIA_FIRST_RANK", "CONSORTIA_ALL_RANKS"
INTERFACE_VARIABLE, PORT_VARIABLE = "CONSORTIA_INTERFACE", "CONSORTIA_PORT"
POLL_SECONDS = 0.3


def main(arguments: list[str]) -> int:
    """Run the ranks of this node; 0 when all ended well, or were asked to end."""
    os.umask(0o077)
    place = MeetingPlace(Path(arguments[0]))
    number = int(arguments[1]) if len(arguments) > 1 else own_number()
    try:
        packages = place.packages()
    except FileNotFoundError:
        sys.stderr.write(f"{_unseen(place)}\n")
        return FAULT
    return exit_code_of(partial(_run, place, packages, number), place.failure(number))


def own_number() -> int:
    """Which node this is, from what started it."""
    found = [os.environ[name] for name in NUMBERS if name in os.environ]
    if not found:
        raise ValueError(f"expected the number of this node, or one of {', '.join(NUMBERS)}")
    return int(found[0])


def _run(place: MeetingPlace, packages: dict[str, str], number: int) -> None:
    host = socket.gethostname()
    # First: another release may not understand what is to be started.
    require_packages(packages, own_packages(), host)
    launch = place.launch()
    beats = Beats(place.node(number), launch.quiet_seconds, host)
    beats.beat_if_due()
    require_interface(launch.interface, host)
    require_folders((launch.orders, launch.logs, *launch.folders), host)
    signs = _Signs(place, launch.quiet_seconds, beats)
    if launch.is_check:
        call_all_nodes(place, launch, number, signs.over)
        return
    code, failed = _until_all_have_come(signs, launch.nodes), dict[int, int]()
    if code is None:
        log = node_log(launch.logs, number)
        variables = variables_of(place, launch, number)
        with rank_processes(machine_launch(_shape(launch), launch.orders, log, variables)) as ranks:
            code = _until_over(ranks, signs)
        first = number * launch.ranks_per_node
        failed = {first + rank: ended for rank, ended in failed_ranks(log).items()}
    if place.directory.exists():
        place.say_ended(number, Ended(host=host, code=code, ranks=failed if code else {}))


class _Signs:
    """What this node and its agent hear of each other."""

    def __init__(self, place: MeetingPlace, quiet_seconds: float, beats: Beats) -> None:
        self.place = place
        self._quiet_seconds, self._beats = quiet_seconds, beats
        self._agent = Pulse(place.agent)

    def over(self) -> int | None:
        """Give a sign of life; the exit code where this node is not wanted any more."""
        if self.place.is_closed:
            return DONE
        if self._agent.seconds_quiet() > self._quiet_seconds:
            return ORPHANED
        # A disk that is full or gone for a moment: the next beat may do.
        with suppress(OSError):
            self._beats.beat_if_due()
        return None


def _until_all_have_come(signs: _Signs, nodes: int) -> int | None:
    """None when all have; the exit code where this node is not wanted before.

    Ranks wait minutes for each other, a queue may take hours from its first node to its last.
    """
    waited_for = list(range(nodes))
    while waited_for := [each for each in waited_for if not signs.place.node(each).exists()]:
        if (code := signs.over()) is not None:
            return code
        time.sleep(POLL_SECONDS)
    return None


def _until_over(ranks: RankProcesses, signs: _Signs) -> int:
    while (code := ranks.exit_code()) is None:
        if (over := signs.over()) is not None:
            return over
        time.sleep(POLL_SECONDS)
    return code


def variables_of(place: MeetingPlace, launch: NodesLaunch, number: int) -> dict[str, str]:
    """What the environment of this node's ranks has besides that of a machine alone."""
    return {
        MEETING_VARIABLE: str(place.directory),
        FIRST_RANK_VARIABLE: str(number * launch.ranks_per_node),
        ALL_RANKS_VARIABLE: str(launch.nodes * launch.ranks_per_node),
        INTERFACE_VARIABLE: launch.interface,
        PORT_VARIABLE: str(launch.port),
        "GLOO_SOCKET_IFNAME": launch.interface,
        # NCCL takes a name for the beginning of names, Gloo for one.
        "NCCL_SOCKET_IFNAME": f"={launch.interface}",
    }


def require_packages(wanted: dict[str, str], found: dict[str, str], host: str) -> None:
    """Raise SiloOperatorError where this node has not the agent's versions."""
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if differing:
        raise SiloOperatorError(
            f"software of node {host}",
            expected=", ".join(f"{name} {wanted[name]}" for name in differing) + ", as the agent",
            found=", ".join(f"{name} {found.get(name, 'not installed')}" for name in differing),
            action="install the same release on all nodes, while the agent is stopped",
        )


def require_folders(folders: Iterable[Path], host: str) -> None:
    """Raise SiloOperatorError where this node does not see what the agent sees."""
    for folder in folders:
        if not folder.is_dir():
            raise SiloOperatorError(
                f"files of the silo on node {host}",
                expected=f"to see {folder}",
                found="no such directory",
                action="mount or copy it on all nodes, under the same path as for the agent",
            )


def _shape(launch: NodesLaunch) -> GroupShape:
    (model_dir, *_) = launch.folders
    return GroupShape(model_dir, launch.device, launch.ranks_per_node, launch.threads)


def _unseen(place: MeetingPlace) -> SiloOperatorError:
    return SiloOperatorError(
        f"home of the silo on node {socket.gethostname()}",
        expected=f"to see {place.directory}, which the agent wrote",
        found="no such directory",
        action="mount the file system with the silo's home on all nodes, under the same path",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
