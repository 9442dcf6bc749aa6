"""The error that the agent raises when a process of its own failed without reporting why."""

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.processes.exit_codes import described_exit
from silo_agent.restarts import ProcessDiedError
from silo_agent.training.processes.rank_log import rank_log
from silo_agent.training.processes.torchrun import failed_ranks

_ERROR_LINE = re.compile(r"^(\[rank\d+\]: )?[\w.]*(Error|Exception|Interrupt)\b")
_TORCHRUN_SUMMARY = "ChildFailedError"


@dataclass(frozen=True)
class FailedProcess:
    """One process; `code` is its exit code, negative for a signal."""

    name: str
    code: int
    log: Path

    def error(self) -> ProcessDiedError:
        """What happened, in the process's own last error line, and what to do."""
        action = f"read {self.log} and correct the cause; the next attempt goes on from there"
        if self.code == -signal.SIGKILL:
            action = (
                "give the machine more memory or use fewer ranks, "
                f"if {self.log} shows no other cause"
            )
        return ProcessDiedError(
            f"training process, {self.name}",
            expected="exit code 0",
            found=f"{described_exit(self.code)}; last error line: {_last_error_line(self.log)}",
            action=action,
        )


def first_failed(launcher: FailedProcess, job: Path | None = None) -> FailedProcess:
    """The rank that failed first, or `launcher` itself when its log names no rank."""
    codes = failed_ranks(launcher.log)
    if not codes:
        return launcher
    return first_of(codes, {rank: log_of(rank, launcher.log, job) for rank in codes})[1]


def first_of(codes: Mapping[int, int], logs: Mapping[int, Path]) -> tuple[int, FailedProcess]:
    """The rank that failed first, of those with these exit codes and logs."""

    def consequence(rank: int) -> tuple[bool, bool, float]:
        # A launcher terminates the ranks that are left; others fail on a lost connection, later.
        code = codes[rank]
        return code == -signal.SIGTERM, code >= 0, _written(logs[rank])

    first = min(codes, key=consequence)
    return first, FailedProcess(f"rank {first}", codes[first], logs[first])


def _written(log: Path) -> float:
    """When; last of all where this machine does not see the log, or not yet."""
    try:
        return log.stat().st_mtime
    except OSError:
        return float("inf")


def log_of(rank: int, launcher: Path, job: Path | None) -> Path:
    """Where a rank wrote: beside the `job` that it does, before it knows one beside the log of its
    launcher, and into that one before it has one of its own."""
    places = (rank_log(directory, rank) for directory in (job, launcher.parent) if directory)
    return next((log for log in places if log.exists()), launcher)


def _last_error_line(log: Path) -> str:
    try:
        text = log.read_text(errors="replace")
    except OSError as error:
        return f"(the log cannot be read: {error.strerror or type(error).__name__})"
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR_LINE.match(line) and _TORCHRUN_SUMMARY not in line]
    last = (errors or lines or ["(the log is empty)"])[-1]
    return last.strip()[:300]
