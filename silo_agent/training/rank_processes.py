"""Child processes that never outlive their reason to run.

The ranks form one process group of their own, so that a Ctrl-C at the agent's terminal does not
reach them half way and one signal ends them all. They watch a named pipe that the agent holds
open, so they also end when the agent is killed. They meet through a file, and Gloo and NCCL talk
over loopback: no port of the machine is reachable from outside while a silo trains.
The environment is an allow list: credentials of the agent stay with the agent.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from silo_agent.training.watchdog import AGENT_PIPE_VARIABLE

GRACE_SECONDS = 2.0
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
}
_LOOPBACK = {"darwin": "lo0"}.get(sys.platform, "lo")


class RankProcesses:
    """`count` processes of one module; a context manager that leaves nothing running."""

    def __init__(
        self, module: str, arguments: list[str], *, count: int, threads: int, log_dir: Path
    ) -> None:
        self._command = [sys.executable, "-P", "-m", module, *arguments]
        self._count, self._threads, self._log_dir = count, threads, log_dir
        self._processes: list[subprocess.Popen[bytes]] = []
        self._meeting: tempfile.TemporaryDirectory[str] | None = None
        self._pipe_end = -1

    def __enter__(self) -> Self:
        self._meeting = tempfile.TemporaryDirectory(prefix="silo-agent-")
        pipe = Path(self._meeting.name) / "agent-alive"
        os.mkfifo(pipe, 0o600)
        # Read and write, so that opening does not wait for a reader; never inherited.
        self._pipe_end = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            for rank in range(self._count):
                self._processes.append(self._start(rank))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_all()
        os.close(self._pipe_end)
        if self._meeting is not None:
            self._meeting.cleanup()

    @property
    def pids(self) -> list[int]:
        """Process ids, by rank."""
        return [process.pid for process in self._processes]

    def exit_codes(self) -> list[int | None]:
        """Exit code of each rank, None while it runs, negative for a signal."""
        return [process.poll() for process in self._processes]

    def log_of(self, rank: int) -> Path:
        """Everything that the rank wrote to stdout and stderr."""
        return self._log_dir / f"log-rank-{rank}.txt"

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        # The first rank leads the group; its id stays valid until it is reaped, which only
        # `exit_codes` and `_end_all` do.
        group = self._processes[0].pid if self._processes else 0
        descriptor = os.open(self.log_of(rank), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as log:
            return subprocess.Popen(
                self._command,
                env=self._environment(rank),
                cwd=self._log_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=group,
            )

    def _environment(self, rank: int) -> dict[str, str]:
        meeting = Path(self._meeting.name if self._meeting else "")
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
            "OMP_NUM_THREADS": str(self._threads),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self._count),
            "LOCAL_WORLD_SIZE": str(self._count),
            RENDEZVOUS_VARIABLE: str(meeting / "rendezvous"),
            AGENT_PIPE_VARIABLE: str(meeting / "agent-alive"),
            # Private to this launch: no lock of an earlier, killed build can make ranks wait.
            "TORCH_EXTENSIONS_DIR": str(meeting / "torch-extensions"),
        }

    def _end_all(self) -> None:
        running = [process for process in self._processes if process.poll() is None]
        _signal_group(self._processes, signal.SIGTERM if running else signal.SIGKILL)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(p.poll() is None for p in running):
            time.sleep(0.05)
        _signal_group(self._processes, signal.SIGKILL)
        for process in self._processes:
            process.wait()


def _signal_group(processes: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    """Signal the group, helpers of the ranks included; a group without members is fine."""
    if not processes:
        return
    try:
        os.killpg(processes[0].pid, number)
    except ProcessLookupError:
        return
