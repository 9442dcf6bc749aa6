"""How the ranks of one machine are started: forked on CPUs, by torchrun on GPUs."""

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from data_contracts.errors import ConsortiaError
from silo_agent.training.engine_spec import Device
from silo_agent.training.processes.rank_processes import Launch, rank_processes

MODULE, FORKED = "silo_agent.training.ranks.child", "silo_agent.training.ranks.forked"
LOG_NAME = "log-launcher.txt"


@dataclass(frozen=True)
class GroupShape:
    """What ranks are started for; a job of another shape needs others.

    `rank_bytes` is what a rank takes at its peak with the first job, None where that is not known.
    """

    model_dir: Path
    device: Device
    ranks: int
    threads_per_rank: int
    rank_bytes: int | None = field(default=None, compare=False)


class Failed(Protocol):
    """What is to blame for the end of ranks."""

    def error(self) -> ConsortiaError: ...


class Processes(Protocol):
    """The processes of one launch; `pid` is the one at or above all that run on this machine."""

    @property
    def pid(self) -> int: ...

    def exit_code(self) -> int | None: ...

    def failed(self, code: int, job: Path | None = None) -> Failed: ...


class Launcher(Protocol):
    """Starts ranks of a shape that read `orders` and log into a directory; after the block none is
    left running."""

    @property
    def orders_below(self) -> Path | None:
        """The directory in which orders must lie; None for that of temporary files."""
        ...

    def start(
        self, shape: GroupShape, orders: Path, logs: Path
    ) -> AbstractContextManager[Processes]: ...


class ThisMachine:
    """Starts ranks on the machine of the agent."""

    orders_below: Path | None = None

    def start(
        self, shape: GroupShape, orders: Path, logs: Path
    ) -> AbstractContextManager[Processes]:
        """As `Launcher`."""
        return rank_processes(machine_launch(shape, orders, logs / LOG_NAME))


def machine_launch(
    shape: GroupShape, orders: Path, log: Path, variables: Mapping[str, str] | None = None
) -> Launch:
    """A fork is for Linux, where it is safe and ranks end with what they were forked from."""
    settings = tuple((variables or {}).items())
    if shape.device == "cpu" and sys.platform == "linux":
        arguments = (str(shape.ranks), str(orders))
        threads = shape.threads_per_rank
        return Launch(FORKED, arguments, None, threads, log, "launcher", settings)
    return Launch(
        MODULE, (str(orders),), shape.ranks, shape.threads_per_rank, log, variables=settings
    )
