"""A round as a person follows it in a terminal: one row per silo, read from signed records."""

from dataclasses import dataclass

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aggregator.attempt import SiloRecords
from aggregator.coordinator import Coordinator
from aggregator.evidence_reader import read_status
from aggregator.federated_round import Look, look
from aggregator.federation_feed import newest_attempt, read_federation
from aggregator.stage import Stage
from data_contracts.envelope import Verified
from data_contracts.records import RoundPlan, Status
from flows import round_text

BAR_WIDTH = 24


@dataclass(frozen=True)
class SiloView:
    """One silo's part so far."""

    silo: str
    doing: str
    status: Status | None


@dataclass(frozen=True)
class RoundView:
    """The newest plan of the run, its stage and its silos; no plan means nothing started yet."""

    plan: Verified[RoundPlan] | None
    stage: Stage | None
    silos: tuple[SiloView, ...]


def view_round(c: Coordinator) -> RoundView:
    """Read the newest round's state from storage."""
    feed = read_federation(c)
    newest = newest_attempt(c, feed)
    if newest is None:
        return RoundView(None, None, ())
    seen = look(c, newest.plan, feed)
    silos = tuple(_view_silo(c, seen, own) for own in seen.attempt.cohort())
    return RoundView(newest.plan, seen.stage, silos)


def render_round(view: RoundView) -> Table:
    """A table with a progress bar per silo."""
    if view.plan is None or view.stage is None:
        return Table(title="no round has started yet")
    plan = view.plan.record
    title = f"round {plan.round}, attempt {plan.attempt}: {view.stage.value}"
    table = Table(title=title, title_justify="left", expand=False)
    for column in ("silo", "doing", "step", "", "tokens/s", "left"):
        table.add_column(column, justify="right" if column in ("tokens/s", "left") else "left")
    for silo in view.silos:
        table.add_row(silo.silo, silo.doing, *_progress_cells(silo.status))
    return table


def describe_silo(view: SiloView) -> str:
    """One line, for output that is not a terminal."""
    return f"{view.silo}: {view.status.progress if view.status else view.doing}"


def _progress_cells(status: Status | None) -> tuple[Text, Text | ProgressBar, Text, Text]:
    if status is None or not status.steps:
        return Text(""), Text(""), Text(""), Text("")
    bar = ProgressBar(total=status.steps, completed=status.step, width=BAR_WIDTH)
    speed = f"{status.tokens_per_second}" if status.tokens_per_second else ""
    left = f"{status.eta_seconds} s" if status.step < status.steps else ""
    return Text(f"{status.step} of {status.steps}"), bar, Text(speed), Text(left)


def _view_silo(c: Coordinator, seen: Look, records: SiloRecords) -> SiloView:
    silo = records.silo
    status = read_status(c, seen.feed, seen.attempt.plan, silo)
    if records.evaluation is not None:
        return SiloView(silo, "evaluated", None)
    refusal = records.refusal or records.late_refusal
    if refusal is not None:
        return SiloView(silo, round_text.refused(refusal.record.rule), None)
    if records.verdict is not None and not records.verdict.record.passed:
        return SiloView(silo, "its data contract failed", None)
    if status is not None and status.phase != "releasing":
        return SiloView(silo, status.phase.replace("_", " "), status)
    doing = "submitted" if records.submission is not None else "waiting"
    return SiloView(silo, doing, None)
