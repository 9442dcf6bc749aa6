"""Flow runs whose runner was killed: Prefect would show them as running for ever.

Worse, such a run keeps the deployment's only slot, so that no later round would start. A runner
therefore first takes a lock that the kernel gives back on death, so that there is only one, and
then marks what an earlier one left running as crashed. Nothing is lost by that: the next run goes
on from the signed records in storage.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Crashed

from aggregator.settings import FederationSettings
from data_contracts.errors import FederationOperatorError
from infra.file_lock import held_alone, try_lock

RUNNER_LOCK = "deployment-runner.lock"
UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


def is_served(settings: FederationSettings) -> bool:
    """Whether a runner of this home directory runs now: then it holds the lock."""
    path = settings.home / RUNNER_LOCK
    if not path.exists():
        return False
    with path.open("a") as file:
        return not try_lock(file)


@contextmanager
def only_runner(settings: FederationSettings) -> Iterator[None]:
    """Hold the federation's runner lock; a second runner is refused."""
    refusal = FederationOperatorError(
        f"deployment runner of {settings.federation}",
        expected="no other runner with this home directory",
        found="one that runs",
        action="use the one that runs, or stop it first",
    )
    with held_alone(settings.home / RUNNER_LOCK, refusal):
        yield


def crash_orphans(settings: FederationSettings) -> int:
    """Mark unfinished runs of the federation's deployment as crashed; how many there were."""
    with get_client(sync_client=True) as client:
        orphans = client.read_flow_runs(
            deployment_filter=DeploymentFilter(
                name=DeploymentFilterName(any_=[settings.federation])
            ),
            flow_run_filter=_unfinished(),
        )
        for run in orphans:
            for child in _children(client, run.id):
                _crash(client, child)
            _crash(client, run)
    return len(orphans)


def _children(client: SyncPrefectClient, parent: UUID) -> list[FlowRun]:
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]),
            state=_unfinished().state,
        )
    )


def _crash(client: SyncPrefectClient, run: FlowRun) -> None:
    client.set_flow_run_state(
        run.id, Crashed(message="The runner of this run was stopped or killed."), force=True
    )


def _unfinished() -> FlowRunFilter:
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED)))
