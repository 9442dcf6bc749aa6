"""A round as a person follows it in a terminal: one row per silo, read from signed records."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aggregator.attempt import SiloRecords
from aggregator.coordinator import Coordinator
from aggregator.decisions.stage import Stage
from aggregator.evidence.look import Look, look
from aggregator.evidence.reader import read_status
from aggregator.feed.reading import newest_attempt, read_federation
from aggregator.unlearning.revoked import revoked_line
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan, Status
from flows.round import wording
from flows.round.wording import versions_line

BAR_WIDTH = 24
SILENT_AFTER = timedelta(minutes=3)
"""While it trains an agent speaks at every step, but for `status_seconds` (10 s) after the last."""
SILENT_AFTER_STEPS = 3
TWO_MACHINES = "signed two different records: is its key on two machines?"
NEWER_SILO = "runs a later version than can be read here: upgrade this coordinator"
SILENT_WITHOUT_STEPS = timedelta(minutes=15)
"""Loading a model is said once, when it begins."""


@dataclass(frozen=True)
class SiloView:
    """One silo's part so far. `status` is what it does now: None where it does nothing, has
    stopped, or has been silent for too long to say. `heard` is when it last said anything,
    `program` the version of its agent."""

    silo: str
    doing: str
    status: Status | None
    heard: datetime | None = None
    program: str | None = None


@dataclass(frozen=True)
class RoundView:
    """The newest plan of the run, its stage and its silos; no plan means nothing started yet.

    `revoked`: where the adapter in force has the part of a silo that was taken out.
    """

    plan: Verified[RoundPlan] | None
    stage: Stage | None
    silos: tuple[SiloView, ...]
    at: datetime | None = None
    revoked: str | None = None


def view_round(c: Coordinator) -> RoundView:
    """Read the newest round's state from storage."""
    feed = read_federation(c)
    newest = newest_attempt(c, feed)
    if newest is None:
        return RoundView(None, None, ())
    revoked = revoked_line(c, feed)
    seen = look(c, newest.plan, feed)
    now = c.clock.now()
    silos = tuple(_view_silo(c, seen, own, now) for own in seen.attempt.cohort())
    return RoundView(newest.plan, seen.stage, silos, now, revoked)


def render_round(view: RoundView) -> Table:
    """A table with a progress bar per silo."""
    if view.plan is None or view.stage is None:
        return Table(title="no round has started yet")
    plan = view.plan.record
    title = f"round {plan.round}, attempt {plan.attempt}: {view.stage.value}"
    table = Table(title=title, title_justify="left", expand=False)
    programs = [(silo.silo, silo.program) for silo in view.silos]
    table.caption, table.caption_justify = versions_line(plan.program, programs), "left"
    # Only silos whose policy shows it say what their ranks hold.
    memory = {s.silo: s.status.memory for s in view.silos if s.status and s.status.memory}
    measured = ("tokens/s", "left", *(("memory",) if memory else ()), "heard from")
    for column in ("silo", "doing", "step", "", *measured):
        table.add_column(column, justify="right" if column in measured else "left")
    for silo in view.silos:
        held = [memory.get(silo.silo, "")] if memory else []
        heard = _ago(silo.heard, view.at or plan.issued_at)
        table.add_row(silo.silo, silo.doing, *_progress_cells(silo.status), *held, heard)
    return table


def describe_silo(view: SiloView) -> str:
    """One line, for output that is not a terminal."""
    return f"{view.silo}: {view.status.progress if view.status else view.doing}"


def _progress_cells(status: Status | None) -> tuple[Text, Text | ProgressBar, Text, Text]:
    if status is None or not status.steps:
        return Text(""), Text(""), Text(""), Text("")
    bar = ProgressBar(total=status.steps, completed=status.step, width=BAR_WIDTH)
    speed = f"{status.tokens_per_second}" if status.tokens_per_second else ""
    left = "" if status.seconds_left is None else f"{status.seconds_left} s"
    return Text(f"{status.step} of {status.steps}"), bar, Text(speed), Text(left)


def _view_silo(c: Coordinator, seen: Look, records: SiloRecords, now: datetime) -> SiloView:
    status = read_status(c, seen.feed, seen.attempt.plan, records.silo)
    said = (status, *(v.record for v in (records.acceptance, records.refusal) if v is not None))
    program = next((record.program for record in said if record is not None), None)
    return replace(_viewed(records, status, now), program=program)


def _viewed(records: SiloRecords, status: Status | None, now: datetime) -> SiloView:
    silo = records.silo
    heard = max((r.record.issued_at for r in records.records()), default=None)
    if status is not None:
        heard = max(status.issued_at, heard or status.issued_at)
    if records.equivocated:
        return SiloView(silo, TWO_MACHINES, None, heard)
    if records.is_newer:
        return SiloView(silo, NEWER_SILO, None, heard)
    if records.evaluation is not None:
        return SiloView(silo, "evaluated", None, heard)
    refusal = records.refusal or records.late_refusal
    if refusal is not None:
        return SiloView(silo, wording.refused(refusal.record.rule), None, heard)
    if records.verdict is not None and not records.verdict.record.passed:
        return SiloView(silo, "its data contract failed", None, heard)
    if status is not None and status.phase != "releasing":
        return _from_status(status, now, heard)
    return SiloView(silo, _last_word(records), None, heard)


def _last_word(records: SiloRecords) -> str:
    """What a silo has done last, where nothing more recent is known."""
    words = {
        "revealed_shares": "revealed its shares",
        "countersignature": "countersigned the close",
        "submission": "submitted",
        "sealed_shares": "sealed shares for the others",
        "mask_keys": "gave its mask keys",
    }
    return next((says for name, says in words.items() if getattr(records, name)), "waiting")


def _from_status(status: Status, now: datetime, heard: datetime | None) -> SiloView:
    """What it said last, as long as that can still be so."""
    doing = status.phase.replace("_", " ")
    if status.phase == "stopped":
        return SiloView(status.silo, "stopped by its operator or a fault", None, heard)
    if now - status.issued_at > _longest_silence(status):
        return SiloView(status.silo, f"silent; was {doing}", None, heard)
    return SiloView(status.silo, doing, status, heard)


def _longest_silence(status: Status) -> timedelta:
    """How long an agent that still works may be silent after this status."""
    if not status.steps:
        return SILENT_WITHOUT_STEPS
    left = status.steps - status.step
    a_step = timedelta(seconds=status.eta_seconds / left) if left > 0 else timedelta(0)
    return max(SILENT_AFTER, SILENT_AFTER_STEPS * a_step)


def _ago(heard: datetime | None, now: datetime) -> str:
    """How long ago a silo was last heard from, in one unit."""
    if heard is None:
        return "never"
    seconds = max(0, int((now - heard).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
