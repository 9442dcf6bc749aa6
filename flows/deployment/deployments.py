"""Registers the federation's deployment with Prefect and runs what it schedules.

One deployment per federation: `federated-training/<federation>`. Runs never overlap: a new one
waits in the queue until the slot is free. The runner starts each flow run in a process of its own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from prefect import serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron

from aggregator.settings.federation import FederationSettings
from data_contracts.errors import FederationOperatorError
from flows.deployment.orphaned_processes import end_orphans, name_children
from flows.deployment.orphaned_runs import crash_orphans, lost_runs_resumed, only_runner
from flows.deployment.prefect_faults import prefect_answers, require_prefect
from flows.deployment.prefect_outage import serve_through_outages
from flows.deployment.runner_output import without_traces
from flows.deployment.schedule import (
    SCHEDULE_SLUG,
    ScheduleChange,
    known_deployment,
    remove_left_runs,
    remove_schedules,
    schedule_change,
    schedule_lines,
)
from flows.round.federated_training import federated_training
from infra.clock import SystemClock
from infra.terminal import command_line

FLOW_NAME = "federated-training"


class NotDeployedError(FederationOperatorError):
    """Rounds were asked for before the federation's deployment was registered."""


def deployment_name(settings: FederationSettings) -> str:
    """Name under which Prefect knows the federation's deployment."""
    return f"{FLOW_NAME}/{settings.federation}"


@dataclass(frozen=True)
class Registration:
    """A deployment as it was registered, and what became of its schedule, in lines to be shown."""

    deployment: RunnerDeployment
    id: str
    schedule_lines: tuple[str, ...]


def build_deployment(settings: FederationSettings, change: ScheduleChange) -> RunnerDeployment:
    """The deployment, with its cron schedule when the settings have one."""
    schedule = settings.schedule
    options: dict[str, Any] = {}
    if schedule.cron is not None:
        cron = Cron(
            schedule.cron, timezone=schedule.timezone, slug=SCHEDULE_SLUG, active=change.active
        )
        options["schedules"] = [cron]
    deployment = federated_training.to_deployment(
        name=settings.federation,
        parameters={"home": str(settings.home), "until_round": None},
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
        ),
        description=f"Rounds of the federation {settings.federation}: {settings.purpose}",
        tags=[settings.federation],
        paused=change.paused,
        **options,
    )
    return cast(RunnerDeployment, deployment)


def register(settings: FederationSettings) -> Registration:
    """Register or update the deployment, so that the server schedules what the settings say."""
    require_prefect(settings)
    with prefect_answers(settings), get_client(sync_client=True) as client:
        known = known_deployment(client, deployment_name(settings))
        change = schedule_change(settings.schedule, known)
        remove_schedules(client, known, change)
        deployment = build_deployment(settings, change)
        deployment_id = cast(UUID, deployment.apply())
        remove_left_runs(client, deployment_id)
    lines = schedule_lines(settings.schedule, change, datetime.now(UTC))
    return Registration(deployment, str(deployment_id), tuple(lines))


def serve_rounds(
    settings: FederationSettings, on_ready: Callable[[list[str]], None], say: Callable[[str], None]
) -> None:
    """Register, call `on_ready`, then run scheduled and requested rounds until this process ends.

    What an earlier runner left behind is ended first, and its rounds are asked for again, of which
    `on_ready` gets a line each, after those about the schedule. The schedule stays active when the
    runner stops, so that a restarted one goes on. A Prefect that goes away later is waited for, and
    then all of this is done again: `say` gets a line a minute meanwhile.
    """
    require_prefect(settings)
    with only_runner(settings):
        name_children(settings.home)
        serve_through_outages(
            lambda: _serve(settings, on_ready, say),
            lambda: require_prefect(settings),
            SystemClock(),
            say,
        )


def _serve(
    settings: FederationSettings,
    on_ready: Callable[[list[str]], None],
    say: Callable[[str], None],
) -> None:
    with prefect_answers(settings):
        end_orphans(settings.home)
        registration = register(settings)
        on_ready([*registration.schedule_lines, *crash_orphans(settings)])
        with without_traces(), lost_runs_resumed(settings, say), ended_early():
            serve(registration.deployment, pause_on_shutdown=False, print_starting_message=False)


@contextmanager
def ended_early() -> Iterator[None]:
    """A SIGTERM before Prefect's runner has begun to run is an end as well; it raises then."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("Runner has not yet started"):
            raise


def start_rounds(settings: FederationSettings, until_round: int | None) -> str:
    """Ask for rounds now; returns the flow run's id. Raises NotDeployedError before `register`."""
    require_prefect(settings)
    name = deployment_name(settings)
    parameters = {"home": str(settings.home), "until_round": until_round}
    try:
        with prefect_answers(settings):
            run: Any = run_deployment(name, parameters=parameters, timeout=0, as_subflow=False)
    except ObjectNotFound:
        deploy = command_line("consortia", "deploy", "--home", settings.home)
        raise NotDeployedError(
            f"deployment {name}",
            expected="Prefect to know it",
            found="none of that name",
            action=f"run `{deploy}` and leave it running",
        ) from None
    return str(run.id)
