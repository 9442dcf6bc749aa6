"""Child processes that never outlive their reason to run.

The ranks are forked on CPUs and started by torchrun on GPUs, in sessions of their own, so that a
Ctrl-C at the agent's terminal does not reach them half way. They watch a named pipe that the agent
holds open, so they also end when the agent is killed, and their launcher ends with them. They meet
through a file, and Gloo and NCCL talk over loopback: no port of the machine is reachable from
outside while a silo trains. The environment is an allow list: credentials of the agent stay with
the agent.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from infra.processes.parent_pipe import PIPE_VARIABLE, parent_pipe
from infra.processes.process_tree import descendants, kill_and_wait
from silo_agent.training.processes.failed_process import FailedProcess, first_failed
from silo_agent.training.processes.rank_log import LOG_DIRECTORY_VARIABLE, open_private
from silo_agent.training.processes.torchrun import TORCHRUN_VARIABLES, torchrun_command

GRACE_SECONDS = 3.0
RENDEZVOUS_VARIABLE = "CONSORTIA_RENDEZVOUS"
"""Path of the file through which the ranks of one machine find each other."""

_KEPT = {"PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV", "USER", "SHELL"}
_KEPT_PREFIXES = ("CUDA", "NCCL", "NVIDIA", "GLOO", "LD_", "LC_", "PYTHON", "ROCR", "HIP_", "MKL_")
_FIXED = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    # glibc's aligned requests cut ends off, and keep these apart for small ones: the place that a
    # tensor leaves is then too short for the next of its size (docs/decisions/0032).
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
    # Nothing is compiled here; else an optimizer of DeepSpeed that is not used loads the compiler.
    "TORCHDYNAMO_DISABLE": "1",
    **TORCHRUN_VARIABLES,
}
_LOOPBACK = {"darwin": "lo0"}.get(sys.platform, "lo")


@dataclass(frozen=True)
class Launch:
    """A module to run: once per rank by torchrun, or with `ranks` None as one plain process, which
    may fork ranks itself.

    `log` takes the output of the process that the agent starts; ranks write beside it. `name` is
    that of this process in messages; `variables` join its environment.
    """

    module: str
    arguments: tuple[str, ...]
    ranks: int | None
    threads: int
    log: Path
    name: str = "torchrun"
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class RankProcesses:
    """The processes of one launch; made by `rank_processes`."""

    launch: Launch
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Of the process that was started: what launches ranks, or the one that works alone."""
        return self.process.pid

    def exit_code(self) -> int | None:
        """None while anything may run, 0 when every rank ended well; negative for a signal."""
        return self.process.poll()

    def failed(self, code: int, job: Path | None = None) -> FailedProcess:
        """The process to blame when `exit_code` is `code`, not 0; ranks may log beside a `job`."""
        return first_failed(FailedProcess(self.launch.name, code, self.launch.log), job)


@contextmanager
def rank_processes(launch: Launch) -> Iterator[RankProcesses]:
    """Start a launch; after the block nothing of it is left running."""
    with (
        tempfile.TemporaryDirectory(prefix="silo-agent-") as directory,
        parent_pipe(Path(directory)) as pipe,
    ):
        process = _started(launch, Path(directory), pipe)
        try:
            yield RankProcesses(launch, process)
        finally:
            _end(process)


def _started(launch: Launch, directory: Path, pipe: Path) -> subprocess.Popen[bytes]:
    # -P: a file in the working directory must not stand in for a module.
    command = [sys.executable, "-P", "-m", launch.module, *launch.arguments]
    if launch.ranks is not None:
        command = torchrun_command(launch.ranks, command, directory)
    with os.fdopen(open_private(launch.log), "wb") as log:
        return subprocess.Popen(
            command,
            env=_environment(launch, directory, pipe),
            cwd=launch.log.parent,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            umask=0o077,
            process_group=0,
        )


def kept_environment() -> dict[str, str]:
    """What of the agent's environment its processes get."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }


def _environment(launch: Launch, directory: Path, pipe: Path) -> dict[str, str]:
    return {
        "GLOO_SOCKET_IFNAME": _LOOPBACK,
        # NCCL takes a name for the beginning of names, Gloo for one.
        "NCCL_SOCKET_IFNAME": f"={_LOOPBACK}",
        **kept_environment(),
        **_FIXED,
        "OMP_NUM_THREADS": str(launch.threads),
        # NumPy's arithmetic decides nothing here, and its threads would stand in the way of a fork.
        "OPENBLAS_NUM_THREADS": "1",
        LOG_DIRECTORY_VARIABLE: str(launch.log.parent),
        RENDEZVOUS_VARIABLE: str(directory / "rendezvous"),
        PIPE_VARIABLE: str(pipe),
        # Private to this launch: no lock of an earlier, killed build can make ranks wait.
        "TORCH_EXTENSIONS_DIR": str(directory / "torch-extensions"),
        **dict(launch.variables),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the launcher, which ends the ranks; then kill it, so that it starts no more."""
    started = descendants(process.pid)
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    process.kill()
    process.wait()
    kill_and_wait(started)
