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

import psutil

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
        launch = place.launch()
    except FileNotFoundError:
        sys.stderr.write(f"{_unseen(place)}\n")
        return FAULT
    return exit_code_of(partial(_run, place, launch, number), place.failure(number))


def own_number() -> int:
    """Which node this is, from what started it."""
    found = [os.environ[name] for name in NUMBERS if name in os.environ]
    if not found:
        raise ValueError(f"expected the number of this node, or one of {', '.join(NUMBERS)}")
    return int(found[0])


def _run(place: MeetingPlace, launch: NodesLaunch, number: int) -> None:
    host = socket.gethostname()
    beats = Beats(place.node(number), launch.quiet_seconds, host)
    beats.beat_if_due()
    require_packages(launch.packages, own_packages(), host)
    require_interface(launch.interface, host)
    require_folders((launch.orders, launch.logs, *launch.folders), host)
    if launch.is_check:
        place.say_ended(number, Ended(host=host, code=DONE))
        return
    log = node_log(launch.logs, number)
    variables = _variables(place, launch, number)
    with rank_processes(machine_launch(_shape(launch), launch.orders, log, variables)) as ranks:
        code = _until_over(ranks, place, launch, beats)
    first = number * launch.ranks_per_node
    failed = {first + rank: code for rank, code in failed_ranks(log).items()}
    if place.directory.exists():
        place.say_ended(number, Ended(host=host, code=code, ranks=failed if code else {}))


def _until_over(
    ranks: RankProcesses, place: MeetingPlace, launch: NodesLaunch, beats: Beats
) -> int:
    agent = Pulse(place.agent)
    while (code := ranks.exit_code()) is None:
        if place.is_closed:
            return DONE
        if agent.seconds_quiet() > launch.quiet_seconds:
            return ORPHANED
        # A disk that is full or gone for a moment: the next beat may do.
        with suppress(OSError):
            beats.beat_if_due()
        time.sleep(POLL_SECONDS)
    return code


def _variables(place: MeetingPlace, launch: NodesLaunch, number: int) -> dict[str, str]:
    return {
        MEETING_VARIABLE: str(place.directory),
        FIRST_RANK_VARIABLE: str(number * launch.ranks_per_node),
        ALL_RANKS_VARIABLE: str(launch.nodes * launch.ranks_per_node),
        INTERFACE_VARIABLE: launch.interface,
        PORT_VARIABLE: str(launch.port),
        "GLOO_SOCKET_IFNAME": launch.interface,
        "NCCL_SOCKET_IFNAME": launch.interface,
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


def require_interface(name: str, host: str) -> None:
    """Raise SiloOperatorError where this node has no network interface of that name that is up."""
    there = {each: stats.isup for each, stats in psutil.net_if_stats().items()}
    if not there.get(name):
        raise SiloOperatorError(
            f"network interface of node {host}",
            expected=f"{name}, up, as [training.nodes] interface says",
            found=", ".join(each for each, is_up in sorted(there.items()) if is_up) or "none",
            action="name the interface that all nodes have between them in silo-agent.toml",
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
