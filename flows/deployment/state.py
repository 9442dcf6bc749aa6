"""What Prefect knows of the federation's deployment: registered, served, running, scheduled."""

from datetime import UTC, datetime

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from aggregator.settings.federation import FederationSettings
from flows.deployment.deployments import deployment_name
from flows.deployment.orphaned_runs import UNFINISHED, in_states, is_served, of_federation
from flows.deployment.prefect_faults import prefect_answers, require_prefect
from flows.deployment.runner import Runner

_FAILED = [StateType.FAILED, StateType.CRASHED]
_ENDED = [*_FAILED, StateType.COMPLETED, StateType.CANCELLED]


def read_runner(settings: FederationSettings) -> Runner:
    """Ask Prefect; raises FederationOperatorError when it does not answer."""
    require_prefect(settings)
    with prefect_answers(settings), get_client(sync_client=True) as client:
        try:
            client.read_deployment_by_name(deployment_name(settings))
        except ObjectNotFound:
            return Runner(served=is_served(settings))
        running = _first(client, settings, UNFINISHED, FlowRunSort.START_TIME_DESC)
        planned = _first(
            client, settings, [StateType.SCHEDULED], FlowRunSort.EXPECTED_START_TIME_ASC
        )
        last = _first(client, settings, _ENDED, FlowRunSort.END_TIME_DESC)
    return Runner(
        registered=True,
        served=is_served(settings),
        next_run=_start(planned),
        running=_named(running) if running else _due(planned),
        failed=_named(last) if last is not None and last.state_type in _FAILED else None,
    )


def _first(
    client: SyncPrefectClient,
    settings: FederationSettings,
    types: list[StateType],
    sort: FlowRunSort,
) -> FlowRun | None:
    found = client.read_flow_runs(
        deployment_filter=of_federation(settings),
        flow_run_filter=in_states(types),
        sort=sort,
        limit=1,
    )
    return found[0] if found else None


def _start(run: FlowRun | None) -> datetime | None:
    start = run.expected_start_time if run is not None else None
    return start.astimezone(UTC) if start is not None else None


def _due(run: FlowRun | None) -> str | None:
    """A run that was asked for, or whose time has come, and that the runner will take up."""
    start = _start(run)
    return _named(run) if run and start is not None and start <= datetime.now(UTC) else None


def _named(run: FlowRun) -> str:
    message = f": {run.state.message}" if run.state is not None and run.state.message else ""
    return f"{run.name} is {(run.state_name or 'unknown').lower()}{message}"
