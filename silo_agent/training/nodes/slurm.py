"""Nodes out of a Slurm queue: one batch job, in which srun starts one task on each node."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from infra.disk.durable_files import write_durably
from silo_agent.training.engine_spec import Device
from silo_agent.training.nodes.node_launcher import ALL, answer, last_line, node_command

SCRIPT, LOG = "job.sbatch", "log-slurm.txt"
ASK_SECONDS = 15.0
_LIVES = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "STAGE_OUT", "RESIZING"}
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
        return StartedJob(said.split(";")[0], self.logs / LOG)

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
    log: Path
    _asked: float = field(default_factory=time.monotonic)
    _state: str = "PENDING"

    def lost(self) -> Mapping[int, str]:
        """As `StartedNodes`; Slurm is not asked more often than every `ASK_SECONDS`."""
        if time.monotonic() - self._asked >= ASK_SECONDS:
            self._asked, self._state = time.monotonic(), self.state()
        if self._state in _LIVES:
            return {}
        return {ALL: f"Slurm job {self.job}: {self._state}; its last line: {last_line(self.log)}"}

    def state(self) -> str:
        """What Slurm says of the job; of one that it has forgotten that it is over."""
        command = ["squeue", "--noheader", "--format=%T", "--states=all", f"--jobs={self.job}"]
        try:
            said = answer(command, _ACTION)
        except SiloOperatorError as error:
            return "no longer known" if "Invalid job id" in error.found else self._state
        return said.split()[0] if said else "no longer known"

    def end(self) -> None:
        """As `StartedNodes`."""
        answer(["scancel", "--quiet", self.job], f"end it by hand: scancel {self.job}")
