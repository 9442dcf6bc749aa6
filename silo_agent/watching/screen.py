"""How `silo-agent status --watch` shows an agent: a few rows that fit a narrow terminal."""

from datetime import datetime, timedelta

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from data_contracts.protocol.records import Status
from data_contracts.shown_text import size_text
from silo_agent.watching.agent_view import AgentView, runs

WIDEST_BAR = 40
LABEL_WIDTH = 8


def render_agent(view: AgentView, now: datetime, width: int) -> Table:
    """Rows of a label and a value for a terminal of `width` columns; what is unknown has none."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, width=LABEL_WIDTH)
    table.add_column(overflow="fold")
    for label, value in _rows(view, now, width):
        table.add_row(Text(label, style="dim"), Text(value) if isinstance(value, str) else value)
    return table


def _rows(view: AgentView, now: datetime, width: int) -> list[tuple[str, RenderableType]]:
    rows: list[tuple[str, RenderableType]] = [("agent", runs(view))]
    if view.is_stopped:
        rows.append(("switch", "STOP: nothing leaves"))
    if view.is_restored:
        rows.append(("home", "restored: what was signed since is read in storage first"))
    if view.working is not None:
        rows += _work(view.working, now, width)
    else:
        rows.append(("last", view.said))
        if view.status is not None:
            rows.append(("said", _ago(view.status.issued_at, now)))
    if view.pid is not None:
        rows.append(("ranks", view.ranks_said))
    return rows


def _work(status: Status, now: datetime, width: int) -> list[tuple[str, RenderableType]]:
    rows: list[tuple[str, RenderableType]] = [
        ("round", f"{status.round}, attempt {status.attempt}, run {status.run}"),
        ("phase", status.phase.replace("_", " ")),
    ]
    if status.steps:
        bar = min(WIDEST_BAR, max(1, width - LABEL_WIDTH - 2))
        rows.append(
            ("loss" if status.phase == "evaluating" else "step", f"{status.step} of {status.steps}")
        )
        rows.append(("", ProgressBar(status.steps, status.step, width=bar)))
    elif status.step:
        rows.append(("records", f"{status.step:,} so far"))
    if status.steps and status.tokens_per_second:
        rows.append(("speed", f"{status.tokens_per_second} tokens/s"))
    if status.step < status.steps:
        rows.append(("left", str(timedelta(seconds=status.eta_seconds))))
    if status.gpu_memory_bytes is not None:
        rows.append(("GPU", f"{size_text(status.gpu_memory_bytes)} at most on the first rank's"))
    rows.append(("said", _ago(status.issued_at, now)))
    return rows


def _ago(at: datetime, now: datetime) -> str:
    """When it was said: a clock that is behind makes it now."""
    return f"{timedelta(seconds=max(0, int((now - at).total_seconds())))} ago"
