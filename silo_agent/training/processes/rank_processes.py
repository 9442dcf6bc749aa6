"""Child processes that never outlive their reason to run.

The ranks are started by torchrun, in sessions of their own, so that a Ctrl-C at the agent's
terminal does not reach them half way. They watch a named pipe that the agent holds open, so they
also end when the agent is killed, and torchrun ends with them. They meet through a file, and Gloo
and NCCL talk over loopback: no port of the machine is reachable from outside while a silo trains.
The environment is an allow list: credentials of the agent stay with the agent.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from silo_agent.training.processes.failed_process import FailedProcess, first_failed
from silo_agent.training.processes.rank_log import LOG_DIRECTORY_VARIABLE, open_private
from silo_agent.training.processes.torchrun import TORCHRUN_VARIABLES, torchrun_command
from silo_agent.training.processes.watchdog import AGENT_PIPE_VARIABLE

GRACE_SECONDS = 3.0
KILLED_WITHIN_SECONDS = 5.0
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
    **TORCHRUN_VARIABLES,
}
_LOOPBACK = {"darwin": "lo0"}.get(sys.platform, "lo")


@dataclass(frozen=True)
class Launch:
    """A module to run: once per rank by torchrun, or with `ranks` None as one plain process.

    `log` takes the output of the process that the agent starts; ranks write beside it.
    """

    module: str
    arguments: tuple[str, ...]
    ranks: int | None
    threads: int
    log: Path


class RankProcesses:
    """The processes of one launch; a context manager that leaves nothing running."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._exits = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as exits:
            directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="silo-agent-")))
            pipe = directory / "agent-alive"
            os.mkfifo(pipe, 0o600)
            exits.callback(_kill_all_that_watch, pipe)
            # Read and write, so that opening does not wait for a reader; never inherited.
            descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            exits.callback(os.close, descriptor)
            exits.callback(self._end)
            self._process = self._start(directory, pipe)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exits.close()

    def exit_code(self) -> int | None:
        """None while anything may run, 0 when every rank ended well; negative for a signal."""
        return self._process.poll() if self._process is not None else None

    def failed(self, code: int) -> FailedProcess:
        """The process to blame when `exit_code` is `code`, which is not 0."""
        if self._launch.ranks is None:
            return FailedProcess("evaluation", code, self._launch.log)
        return first_failed(FailedProcess("torchrun", code, self._launch.log))

    def _start(self, directory: Path, pipe: Path) -> subprocess.Popen[bytes]:
        launch = self._launch
        # -P: a file in the working directory must not stand in for a module.
        command = [sys.executable, "-P", "-m", launch.module, *launch.arguments]
        if launch.ranks is not None:
            command = torchrun_command(launch.ranks, command, directory)
        with os.fdopen(open_private(launch.log), "wb") as log:
            return subprocess.Popen(
                command,
                env=self._environment(directory, pipe),
                cwd=launch.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                umask=0o077,
                process_group=0,
            )

    def _environment(self, directory: Path, pipe: Path) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in _KEPT or name.startswith(_KEPT_PREFIXES)
        }
        return {
            "GLOO_SOCKET_IFNAME": _LOOPBACK,
            "NCCL_SOCKET_IFNAME": _LOOPBACK,
            **kept,
            **_FIXED,
            "OMP_NUM_THREADS": str(self._launch.threads),
            LOG_DIRECTORY_VARIABLE: str(self._launch.log.parent),
            RENDEZVOUS_VARIABLE: str(directory / "rendezvous"),
            AGENT_PIPE_VARIABLE: str(pipe),
            # Private to this launch: no lock of an earlier, killed build can make ranks wait.
            "TORCH_EXTENSIONS_DIR": str(directory / "torch-extensions"),
        }

    def _end(self) -> None:
        """Ask torchrun, which asks the ranks; then kill it, so that it starts no more."""
        if self._process is None:
            return
        started = _descendants(self._process.pid)
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_SECONDS)
        self._process.kill()
        self._process.wait()
        ended = [process for process in started if process.is_running()]
        for process in ended:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _wait_for_end(ended)


def _kill_all_that_watch(pipe: Path) -> None:
    """Return when no process of this launch is left, whoever its parent and session became."""
    while left := _watching(pipe):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _wait_for_end(left)


def _wait_for_end(processes: list[psutil.Process]) -> None:
    """Until none executes; one that was killed still runs for a moment, with no environment left
    to know it by, and one that its new parent has not collected yet executes no more."""
    deadline = time.monotonic() + KILLED_WITHIN_SECONDS
    while time.monotonic() < deadline and any(map(_executes, processes)):
        time.sleep(0.02)


def _executes(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _descendants(pid: int) -> list[psutil.Process]:
    """The processes below one that has not been collected yet."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _watching(pipe: Path) -> list[psutil.Process]:
    """Processes that were given the name of `pipe`, which is unique to one launch."""
    found = []
    for process in psutil.process_iter():
        # Ended meanwhile, or of another user: then it is none of this launch.
        with contextlib.suppress(psutil.Error):
            if process.environ().get(AGENT_PIPE_VARIABLE) == str(pipe):
                found.append(process)
    return found
