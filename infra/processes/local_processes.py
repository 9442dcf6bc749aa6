"""Child processes of the local stack: recorded, logged, and stopped exactly.

Guaranteed: a process is identified by its pid and start time, so a recycled pid is never
signalled; each runs in its own process group with its output in `<state_dir>/logs`; stopping is
bounded. With `keep` unset a child dies with its parent, even when the parent is killed (Linux).
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from data_contracts.errors import ConsortiaError
from infra.disk.durable_files import write_durably
from infra.processes.process_tree import executes
from infra.terminal import command_line

STOP_GRACE_SECONDS = 3.0
KILL_WAIT_SECONDS = 10.0
LOG_TAIL_LINES = 15
SAME_START_SECONDS = 1.0
"""Start times come from the boot time, which small clock corrections shift."""

_PR_SET_PDEATHSIG = 1
# Loaded here because nothing may be imported or allocated freely between fork and exec.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class LocalProcess:
    """A process that this code started; `started_at` is its start in seconds since the epoch.

    `leftovers` are files outside `state_dir` that it leaves behind when it is killed.
    """

    name: str
    pid: int
    started_at: float
    state_dir: Path
    leftovers: tuple[str, ...] = ()

    @property
    def log_path(self) -> Path:
        """Output of the process."""
        return self.state_dir / "logs" / f"{self.name}.log"

    @property
    def record_path(self) -> Path:
        """Where a later command finds the process."""
        return self.state_dir / "processes" / f"{self.name}.json"

    def is_running(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        return self._process() is not None

    def signal(self, number: int) -> None:
        """Signal this process alone; nothing happens when it has ended."""
        process = self._process()
        if process is not None:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """SIGTERM, wait `grace_seconds`, then SIGKILL the process group; remove what it left."""
        self.signal(signal.SIGTERM)
        if not self._ends_within(grace_seconds):
            self.kill()
        for leftover in self.leftovers:
            Path(leftover).unlink(missing_ok=True)
        self.record_path.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL the process group, as a crash would; the record stays for the next start."""
        if self._process() is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if not self._ends_within(KILL_WAIT_SECONDS):
            raise ConsortiaError(
                f"stopping {self.name}",
                expected=f"process {self.pid} to end within {KILL_WAIT_SECONDS:.0f} s",
                found="it still runs",
                action="look for a disk that does not answer, then stop the process by hand",
            )

    def log_tail(self) -> str:
        """Last lines of the log, for an error message."""
        try:
            lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return "no log"
        return "\n".join(lines[-LOG_TAIL_LINES:]) or "an empty log"

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started_at) <= SAME_START_SECONDS
            return process if is_same and executes(process) else None
        except psutil.NoSuchProcess:
            return None

    def _ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        _reap(self.pid)
        return True


def start_process(
    name: str,
    command: Sequence[str],
    state_dir: Path,
    *,
    env: Mapping[str, str],
    keep: bool = False,
    leftovers: tuple[str, ...] = (),
) -> LocalProcess:
    """Start `command` with exactly `env`, in its own session, and record it.

    Unless `keep`, the kernel kills it when the *thread* that started it ends (prctl(2),
    PR_SET_PDEATHSIG), so start long-lived processes from the main thread.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    refuse_second(name, state_dir)
    log_path = state_dir / "logs" / f"{name}.log"
    log_path.parent.mkdir(exist_ok=True, mode=0o700)
    with log_path.open("ab") as log:
        child = subprocess.Popen(
            list(command),
            env=dict(env),
            cwd=state_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
            preexec_fn=None if keep else _dying_with_parent(os.getpid()),
        )
    # `is_running` looks at the process itself; Popen would warn about a child that outlives it.
    child.returncode = 0
    started_at = psutil.Process(child.pid).create_time()
    process = LocalProcess(name, child.pid, started_at, state_dir, leftovers)
    record = json.dumps({k: v for k, v in asdict(process).items() if k != "state_dir"})
    write_durably(process.record_path, record.encode())
    return process


def recorded_processes(state_dir: Path) -> list[LocalProcess]:
    """Processes that were started with this `state_dir` and not stopped, running or not."""
    found = []
    for path in sorted((state_dir / "processes").glob("*.json")):
        fields = json.loads(path.read_text(encoding="utf-8"))
        found.append(
            LocalProcess(
                fields["name"],
                fields["pid"],
                fields["started_at"],
                state_dir,
                tuple(fields.get("leftovers", ())),
            )
        )
    return found


def stop_recorded(state_dir: Path) -> list[str]:
    """Stop what was started with `state_dir`, last started first; names of what still ran."""
    processes = sorted(recorded_processes(state_dir), key=lambda p: -p.started_at)
    stopped = [process.name for process in processes if process.is_running()]
    for process in processes:
        # All are asked before the first is waited for, so that their graces run side by side.
        process.signal(signal.SIGTERM)
    for process in processes:
        process.stop()
    return stopped


def wait_until(is_ready: Callable[[], bool], process: LocalProcess, timeout_seconds: float) -> None:
    """Poll `is_ready`; when the process ends or time is up, stop it and raise with its log.

    It is stopped as well when the wait is interrupted: nothing half started is left running.
    """
    deadline = time.monotonic() + timeout_seconds
    with ExitStack() as if_it_fails:
        if_it_fails.callback(process.stop)
        while not is_ready():
            has_ended = not process.is_running()
            if has_ended or time.monotonic() > deadline:
                raise ConsortiaError(
                    f"starting {process.name}",
                    expected=f"it to answer within {timeout_seconds:.0f} s",
                    found=f"{'it ended' if has_ended else 'no answer'}; its log ends with\n"
                    f"{process.log_tail()}\n",
                    action=f"correct what the log {process.log_path} names, then start again",
                )
            time.sleep(0.1)
        if_it_fails.pop_all()


def refuse_second(name: str, state_dir: Path) -> None:
    """Raise ConsortiaError while `name` runs for `state_dir`; tidy up after one that was killed."""
    for process in recorded_processes(state_dir):
        if process.name != name:
            continue
        if process.is_running():
            raise ConsortiaError(
                f"starting {name}",
                expected=f"none running for {state_dir}",
                found=f"process {process.pid}",
                action=f"use the one that runs, or stop it with `{_stop_command(state_dir)}`",
            )
        process.stop()


def _stop_command(state_dir: Path) -> str:
    return command_line("consortia", "stack", "stop", "--state", state_dir)


def _dying_with_parent(parent_pid: int) -> Callable[[], None] | None:
    if _LIBC is None:
        return None
    prctl = _LIBC.prctl

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The parent may have died between fork and prctl, and then no signal would ever come.
        if os.getppid() != parent_pid:
            os._exit(1)

    return ask_kernel


def _reap(pid: int) -> None:
    """Collect an ended child, so that it does not stay behind as a zombie."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
