"""The schedule of the federation's deployment at Prefect: that of the settings and no other.

Registering a deployment leaves at the server what it no longer names, so what the settings do not
say is taken away first, with the runs that were made from it. A schedule that stays as it is keeps
its id. What was paused in Prefect's page stays paused until it is resumed there.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import DeploymentSchedule, FlowRun, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound

from aggregator.settings.federation import ScheduleSection
from flows.deployment.orphaned_runs import in_states
from flows.deployment.schedule_words import clock_change_words, next_start, usual_words

SCHEDULE_SLUG = "rounds"
"""By which the settings' schedule is told from those that were made in Prefect's page."""


@dataclass(frozen=True)
class KnownDeployment:
    """What the server has of the deployment; without an id it does not know it."""

    id: UUID | None = None
    paused: bool = False
    schedules: tuple[DeploymentSchedule, ...] = ()


@dataclass(frozen=True)
class ScheduleChange:
    """What registering the deployment does to its schedules.

    `kept` and `replaced` are the settings' earlier schedule, `foreign` all others. `active` and
    `paused` are of the schedule and the deployment, as somebody left them in Prefect's page.
    """

    kept: DeploymentSchedule | None = None
    replaced: DeploymentSchedule | None = None
    foreign: tuple[DeploymentSchedule, ...] = ()
    active: bool = True
    paused: bool = False


def known_deployment(client: SyncPrefectClient, name: str) -> KnownDeployment:
    """Ask the server for the deployment `name`."""
    try:
        found = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return KnownDeployment()
    return KnownDeployment(found.id, found.paused, tuple(found.schedules))


def schedule_change(wanted: ScheduleSection, known: KnownDeployment) -> ScheduleChange:
    """What has to change so that the server schedules what is wanted, and nothing else."""
    own = next((s for s in known.schedules if s.slug == SCHEDULE_SLUG), None)
    same = own is not None and _is(own, wanted)
    return ScheduleChange(
        kept=own if same else None,
        replaced=None if same else own,
        foreign=tuple(s for s in known.schedules if s is not own),
        active=own.active if own is not None else True,
        paused=known.paused,
    )


def remove_schedules(
    client: SyncPrefectClient, known: KnownDeployment, change: ScheduleChange
) -> None:
    """Take from the server what is replaced or foreign."""
    replaced = (change.replaced,) if change.replaced is not None else ()
    for schedule in (*change.foreign, *replaced):
        if known.id is not None:
            client.delete_deployment_schedule(known.id, schedule.id)


def remove_left_runs(client: SyncPrefectClient, deployment_id: UUID) -> int:
    """Delete runs that did not begin and whose schedule the server no longer has; how many."""
    in_force = {schedule.id for schedule in client.read_deployment_schedules(deployment_id)}
    waiting = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])),
        flow_run_filter=in_states([StateType.SCHEDULED]),
    )
    left = [run for run in waiting if _is_left(run, in_force)]
    for run in left:
        client.delete_flow_run(run.id)
    return len(left)


def schedule_lines(wanted: ScheduleSection, change: ScheduleChange, now: datetime) -> list[str]:
    """What is scheduled, what changed, and what is unusual about it; for the operator."""
    page = "it was made in Prefect's page, and the settings alone say when rounds start"
    lines = [f"schedule removed: {_described(s)}; {page}" for s in change.foreign]
    lines.append(_own_line(wanted, change, now))
    if change.paused or not change.active:
        held = "the deployment" if change.paused else "the schedule"
        lines.append(
            f"{held} is paused in Prefect's page: no round starts by itself until it is resumed"
        )
    return lines + clock_change_words(wanted, now)


def _own_line(wanted: ScheduleSection, change: ScheduleChange, now: datetime) -> str:
    before = _described(change.replaced) if change.replaced is not None else "none"
    following = next_start(wanted, now)
    if following is None:
        removed = f"schedule removed: {before}" if change.replaced is not None else "no schedule"
        return f"{removed}; rounds start on demand only"
    due = f"next at {following.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if change.kept is not None:
        return f"schedule unchanged: {usual_words(wanted)}; {due}"
    return f"schedule: {before} before, {usual_words(wanted)} now; {due}"


def _described(found: DeploymentSchedule) -> str:
    if isinstance(found.schedule, CronSchedule):
        timezone = found.schedule.timezone or "UTC"
        # Whatever was typed into the page is shown as it is.
        as_section = ScheduleSection.model_construct(cron=found.schedule.cron, timezone=timezone)
        return usual_words(as_section)
    return str(found.schedule)


def _is(found: DeploymentSchedule, wanted: ScheduleSection) -> bool:
    if wanted.cron is None:
        return False
    same = found.schedule == CronSchedule(cron=wanted.cron, timezone=wanted.timezone)
    return same and not found.parameters and found.max_scheduled_runs is None


def _is_left(run: FlowRun, in_force: set[UUID]) -> bool:
    maker = run.created_by
    by_schedule = run.auto_scheduled and maker is not None and maker.type == "SCHEDULE"
    return by_schedule and maker is not None and maker.id not in in_force
