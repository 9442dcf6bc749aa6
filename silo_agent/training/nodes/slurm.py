"""Nodes out of a Slurm queue: one batch job, in which srun starts one task on each node."""

import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from infra.disk.durable_files import write_durably
from silo_agent.training.engine_spec import Device
from silo_agent.training.nodes.node_launcher import (
    ALL,
    ASK_SECONDS,
    GIVE_UP_SECONDS,
    answer,
    last_line,
    node_command,
)

SCRIPT, LOG = "job.sbatch", "log-slurm.txt"
EVERY_SECONDS = 15.0
_FORGOTTEN = "no longer known"
_OVER = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT", _FORGOTTEN),
}
_JOB = re.compile(r"^(?P<job>\d+)(;(?P<cluster>[\w.-]+))?$")
_ACTION = "see `squeue` and [training.nodes.slurm] options in silo-agent.toml, then start it again"


@dataclass(frozen=True)
class Slurm:
    """Launches with sbatch; `options` are those of the site."""

    name: str
    nodes: int
    ranks_per_node: int
    threads: int
    device: Device
    options: tuple[str, ...]
    logs: Path

    def start(self, place: Path) -> "StartedJob":
        """As `NodeLauncher`."""
        script = place / SCRIPT
        write_durably(script, self.script(place).encode())
        said = answer([*self.command(), str(script)], _ACTION)
        return StartedJob(*submitted(said), self.logs / LOG)

    def command(self) -> list[str]:
        """sbatch with what names a path: in a script its patterns would stand for other things."""
        return ["sbatch", "--parsable", f"--chdir={self.logs}", f"--output={LOG}"]

    def script(self, place: Path) -> str:
        """The batch script; Slurm does not queue a job again that lost a node, the agent does."""
        settings = [
            f"--job-name={self.name}",
            f"--nodes={self.nodes}",
            f"--ntasks={self.nodes}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={self.ranks_per_node * self.threads}",
            *([f"--gpus-per-node={self.ranks_per_node}"] if self.device == "cuda" else []),
            "--no-requeue",
            *self.options,
        ]
        lines = "".join(f"#SBATCH {setting}\n" for setting in settings)
        # A node that fails is told from those that end for it: the agent ends them, srun does not.
        keep = "--kill-on-bad-exit=0 --wait=0"
        cpus = self.ranks_per_node * self.threads
        run = f"srun {keep} --cpus-per-task={cpus} {shlex.join(node_command(place))}"
        return f"#!/bin/bash\n{lines}\numask 077\nexec {run}\n"


@dataclass
class StartedJob:
    """A job that was submitted."""

    job: str
    cluster: str | None
    log: Path
    _asked: float = field(default_factory=time.monotonic)
    _state: str = "PENDING"

    def lost(self) -> Mapping[int, str]:
        """As `StartedNodes`; Slurm is not asked more often than every `EVERY_SECONDS`."""
        if time.monotonic() - self._asked >= EVERY_SECONDS:
            self._asked, self._state = time.monotonic(), self.state()
        return self.waiting() if self._state in _OVER else {}

    def waiting(self) -> Mapping[int, str]:
        """As `StartedNodes`."""
        return {ALL: f"Slurm job {self.job}: {self._state}; its last line: {last_line(self.log)}"}

    def state(self) -> str:
        """What Slurm says of the job; of one that it has forgotten that it is over."""
        options = ["--noheader", "--format=%T", "--states=all", f"--jobs={self.job}"]
        try:
            said = answer(["squeue", *self._where(), *options], _ACTION, seconds=ASK_SECONDS)
        except SiloOperatorError as error:
            return _FORGOTTEN if "Invalid job id" in error.found else self._state
        # With a cluster named, a line before says which.
        states = [line for line in said.splitlines() if not line.startswith("CLUSTER:")]
        return states[-1].split()[0] if states else _FORGOTTEN

    def end(self) -> None:
        """As `StartedNodes`."""
        command = ["scancel", *self._where(), "--quiet", self.job]
        answer(command, f"end it by hand: {' '.join(command)}", seconds=GIVE_UP_SECONDS)

    def _where(self) -> list[str]:
        return [f"--clusters={self.cluster}"] if self.cluster else []


def submitted(said: str) -> tuple[str, str | None]:
    """Job and cluster, if any, in what sbatch printed; a site's plugin may say more before them."""
    lines = said.splitlines() or ["(nothing)"]
    found = _JOB.match(lines[-1].strip())
    if found is None:
        raise SiloOperatorError(
            "answer of sbatch",
            expected="the number of the job in its last line, as --parsable has it",
            found=repr(lines[-1][:100]),
            action="see `squeue` for a job that was submitted, and what `sbatch --parsable` prints",
        )
    return found["job"], found["cluster"]
