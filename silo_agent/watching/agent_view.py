"""What one sees of an agent from outside it: its process, its ranks, and what it said last."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from data_contracts.protocol.program_version import program_version
from data_contracts.protocol.records.status import Phase, Status
from data_contracts.shown_text import size_text
from infra.backup.home_restore import is_restored
from silo_agent.leaks import kept
from silo_agent.loop import running_agent
from silo_agent.personal.export import newest_exported
from silo_agent.personal.own_factors import OwnAdapter
from silo_agent.personal.told import own_words, status_words
from silo_agent.privacy.spent import charged_words
from silo_agent.release.kill_switch import KillSwitch
from silo_agent.release.outbox import OUTBOX, kept_refusal
from silo_agent.release.status_reporter import STATUS_NAME
from silo_agent.training.precision import measured_words
from silo_agent.training.processes.rank_memory import rank_memory

WITH_RANKS: tuple[Phase, ...] = (
    "loading_model",
    "training",
    "training_baseline",
    "training_personal",
    "evaluating",
)
UNREADABLE = f"{STATUS_NAME} cannot be read; the next status takes its place"


@dataclass(frozen=True)
class AgentView:
    """One moment of an agent on this machine.

    `pid` is None when it does not run, and `since` is when it was started. `ranks` is the resident
    memory of each rank, in bytes. `status` is what was said last; None where nothing was said yet,
    or `is_unreadable`. `measured` is what a measurement of both precisions has found, in words, and
    `adapter` what is told of the newest adapter of this silo's own, where there is one; `leaks`: of
    the newest leak check; `privacy`: what was charged last, where anything was. `refused_by`: the
    rule by which the silo has refused the attempt that it spoke of last.
    """

    pid: int | None
    since: datetime | None
    version: str
    is_stopped: bool
    is_restored: bool
    status: Status | None
    is_unreadable: bool
    ranks: tuple[int, ...]
    measured: str | None = None
    adapter: str | None = None
    privacy: str | None = None
    leaks: str | None = None
    refused_by: str | None = None

    @property
    def working(self) -> Status | None:
        """What the agent says of its work; None when it has ended, or only an earlier one spoke."""
        if self.status is None or self.since is None or self.status.issued_at < self.since:
            return None
        return None if self.refused_by else self.status

    @property
    def are_idle(self) -> bool:
        """Whether ranks wait in memory for the next work."""
        busy = self.working is not None and self.working.phase in WITH_RANKS
        return bool(self.ranks) and not busy

    @property
    def said(self) -> str:
        """Round, attempt and progress of what it said last, in one line."""
        if self.status is None:
            return UNREADABLE if self.is_unreadable else "nothing yet"
        shown = self.status.model_copy(update={"memory_bytes": None})
        came = f"refused by {self.refused_by}" if self.refused_by else shown.progress
        return f"round {shown.round} attempt {shown.attempt}: {came}"

    @property
    def ranks_said(self) -> str:
        """How many ranks there are, what they hold, and whether they wait."""
        if not self.ranks:
            return "none in memory"
        number = "1 rank" if len(self.ranks) == 1 else f"{len(self.ranks)} ranks"
        held = (
            f"{number}, {size_text(max(self.ranks))} the largest, {size_text(sum(self.ranks))} all"
        )
        return f"{held}, idle" if self.are_idle else held


def view_agent(home: Path, *, with_adapter: bool = True) -> AgentView:
    """Look at the agent of `home`; whatever its files hold, this does not fail.

    Its own adapter is files that are read, so whoever looks every second leaves it out.
    """
    pid = running_agent(home)
    status, is_unreadable = _status(home / STATUS_NAME)
    return AgentView(
        pid=pid,
        since=_started(pid) if pid else None,
        version=program_version(),
        is_stopped=KillSwitch(home).is_on(),
        is_restored=is_restored(home),
        status=status,
        is_unreadable=is_unreadable,
        ranks=rank_memory(pid) if pid else (),
        measured=measured_words(home),
        adapter=_own_adapter(home) if with_adapter else None,
        privacy=charged_words(home),
        leaks=_leaks(home) if with_adapter else None,
        refused_by=_refused_by(home, status),
    )


def _refused_by(home: Path, status: Status | None) -> str | None:
    refusal = None if status is None else kept_refusal(home / OUTBOX, status)
    return None if refusal is None else refusal.rule


def _leaks(home: Path) -> str | None:
    check = kept.newest(home)
    return kept.words(check) if check is not None else None


def _own_adapter(home: Path) -> str | None:
    """The one that `silo-agent export --personal` would write."""
    found = newest_exported(home)
    if isinstance(found, OwnAdapter):
        return own_words(found)
    return status_words(found.facts) if found is not None else None


def _started(pid: int) -> datetime | None:
    """In whole seconds, as a status has them."""
    try:
        return datetime.fromtimestamp(int(psutil.Process(pid).create_time()), UTC)
    except psutil.Error:
        return None


def _status(path: Path) -> tuple[Status | None, bool]:
    try:
        return Status.model_validate_json(path.read_bytes()), False
    except FileNotFoundError:
        return None, False
    except (OSError, ValueError):
        return None, True


def said_lines(view: AgentView) -> list[str]:
    """The lines of `silo-agent status`."""
    lines = [
        f"agent   {runs(view)}",
        f"version {view.version}",
        f"switch  {'STOP' if view.is_stopped else 'off'}",
    ]
    if view.is_restored:
        lines.append("home    restored: what was signed since is read in storage first")
    if view.ranks:
        lines.append(f"ranks   {view.ranks_said}")
    if view.measured:
        lines.append(f"speed   {view.measured}")
    if view.status is not None:
        lines.append(f"last    {view.said}, at {view.status.issued_at:%Y-%m-%d %H:%M:%S} UTC")
    elif view.is_unreadable:
        lines.append(f"last    {view.said}")
    if view.adapter is not None:
        lines.append(f"own     {view.adapter}")
    if view.privacy is not None:
        lines.append(f"privacy {view.privacy}")
    if view.leaks is not None:
        lines.append(f"leaks   {view.leaks}")
    return lines


def runs(view: AgentView) -> str:
    """Whether the agent runs."""
    return f"runs as process {view.pid}" if view.pid is not None else "does not run"
