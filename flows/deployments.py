"""Registers the federation's deployment with Prefect and runs what it schedules.

One deployment per federation: `federated-training/<federation>`. Runs never overlap: a new one
waits in the queue until the slot is free. The runner starts each flow run in a process of its own.
"""

from collections.abc import Callable
from typing import Any, cast

from prefect import serve
from prefect.client.schemas.objects import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
)
from prefect.deployments import run_deployment
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron

from aggregator.settings import FederationSettings
from data_contracts.errors import FederationOperatorError
from flows.federated_training import federated_training
from flows.orphaned_processes import end_orphans, name_children
from flows.orphaned_runs import crash_orphans, only_runner
from flows.prefect_faults import prefect_answers, require_prefect
from flows.runner_output import without_traces
from infra.terminal import command_line

FLOW_NAME = "federated-training"


class NotDeployedError(FederationOperatorError):
    """Rounds were asked for before the federation's deployment was registered."""


def deployment_name(settings: FederationSettings) -> str:
    """Name under which Prefect knows the federation's deployment."""
    return f"{FLOW_NAME}/{settings.federation}"


def build_deployment(settings: FederationSettings) -> RunnerDeployment:
    """The deployment, with its cron schedule when the settings have one."""
    schedule = settings.schedule
    options: dict[str, Any] = {}
    if schedule.cron is not None:
        options["schedules"] = [Cron(schedule.cron, timezone=schedule.timezone, slug="rounds")]
    deployment = federated_training.to_deployment(
        name=settings.federation,
        parameters={"home": str(settings.home), "until_round": None},
        concurrency_limit=ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
        ),
        description=f"Rounds of the federation {settings.federation}: {settings.purpose}",
        tags=[settings.federation],
        **options,
    )
    return cast(RunnerDeployment, deployment)


def register(settings: FederationSettings) -> str:
    """Register or update the deployment; returns its id."""
    require_prefect(settings)
    with prefect_answers(settings):
        return str(build_deployment(settings).apply())


def serve_rounds(settings: FederationSettings, on_ready: Callable[[list[str]], None]) -> None:
    """Register, call `on_ready`, then run scheduled and requested rounds until this process ends.

    What an earlier runner left behind is ended first, and its rounds are asked for again, of which
    `on_ready` gets a line each. The schedule stays active when the runner stops, so that a
    restarted one goes on.
    """
    require_prefect(settings)
    with only_runner(settings), prefect_answers(settings):
        end_orphans(settings.home)
        name_children(settings.home)
        build_deployment(settings).apply()
        on_ready(crash_orphans(settings))
        with without_traces():
            serve(build_deployment(settings), pause_on_shutdown=False, print_starting_message=False)


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
