"""Flow runs whose runner was killed: Prefect would show them as running for ever.

Worse, such a run keeps the deployment's only slot, so that no later round would start. A runner
therefore first takes a lock that the kernel gives back on death, so that there is only one, ends
the processes that an earlier one left, and marks its runs as crashed. Nothing is lost by that: they
are asked for again (`flows.deployment.resumed_runs`) and go on from the signed records in storage.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from pathlib import Path
from threading import Event, Thread
from typing import Any
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
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Crashed

from aggregator.coordinator import RUNNER_LOCK
from aggregator.settings.federation import FederationSettings
from data_contracts.errors import FederationOperatorError
from flows.deployment.orphaned_processes import flow_processes
from flows.deployment.prefect_faults import PrefectUnavailableError, prefect_answers
from flows.deployment.resumed_runs import resume, resume_killed, resumed_line, to_resume
from infra.disk.file_lock import held_alone, is_held

UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
STARTED = [
    *UNFINISHED,
    StateType.COMPLETED,
    StateType.FAILED,
    StateType.CANCELLED,
    StateType.CRASHED,
]

LOOK_SECONDS = 30
END_SECONDS = 2


def is_served(settings: FederationSettings) -> bool:
    """Whether a runner of this home directory runs now: then it holds the lock."""
    return _is_served(settings.home)


def _is_served(home: Path) -> bool:
    return is_held(home / RUNNER_LOCK)


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


def crash_orphans(settings: FederationSettings) -> list[str]:
    """Mark unfinished runs of the deployment as crashed and ask for those of this home again.

    A run that somebody was cancelling is cancelled; one of another home, say where this one was
    before it was moved, only ends. Returns a line for each run that goes on.
    """
    with get_client(sync_client=True) as client:
        started = _started(client, settings)
        unfinished = [run for run in started if run.state_type in UNFINISHED]
        for run in unfinished:
            _end_all(client, run)
        own = [run for run in started if _home(run) == settings.home]
        newest = next((run for run in own if run.start_time is not None), None)
        lines = []
        for run in to_resume([run for run in own if run in unfinished], newest):
            again = resume(client, run, settings.home, times=0)
            lines += [resumed_line(run, again)] if again is not None else []
    return lines


class LostRuns:
    """Flow runs whose process ended while Prefect was away, so that nobody could tell it.

    Prefect's runner reports a dead process for about a minute and then never again. Its run would
    seem to run for ever and keep the deployment's only slot, while the runner itself goes on.
    """

    def __init__(self, settings: FederationSettings) -> None:
        self._settings = settings
        self._without_process: set[UUID] = set()

    def look(self) -> list[str]:
        """End what was without a process at the last look already; a line for each that goes on.

        Two looks, because a process ends a moment before its runner has told Prefect.
        Raises PrefectUnavailableError.
        """
        home = self._settings.home
        with prefect_answers(self._settings), get_client(sync_client=True) as client:
            unfinished = _started(client, self._settings, UNFINISHED)
            runs = {run.id: run for run in unfinished if _home(run) == home}
            without = set() if flow_processes(home) else set(runs)
            lost = [runs[run_id] for run_id in without & self._without_process]
            self._without_process = without
            for run in lost:
                _end_all(client, run)
            lines = [resume_killed(client, run) for run in to_resume(lost, None)]
        return [line for line in lines if line is not None]


@contextmanager
def lost_runs_resumed(
    settings: FederationSettings, say: Callable[[str], None], seconds: float = LOOK_SECONDS
) -> Iterator[None]:
    """Look for lost runs every some seconds while the block runs, beside Prefect's own runner."""
    lost, ended = LostRuns(settings), Event()

    def watch() -> None:
        while not ended.wait(seconds):
            with suppress(PrefectUnavailableError):
                for line in lost.look():
                    say(line)

    # Prefect keeps its settings in a context variable.
    watching = Thread(target=copy_context().run, args=(watch,), name="lost-runs", daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        # A look at a Prefect that is away takes a minute; a runner that is ended ends at once.
        watching.join(END_SECONDS)


def _started(
    client: SyncPrefectClient, settings: FederationSettings, types: list[StateType] = STARTED
) -> list[FlowRun]:
    """Runs of the federation's deployment, the last started one first.

    Left out are those of another home of the same federation that has a runner of its own now.
    """
    runs = client.read_flow_runs(
        deployment_filter=of_federation(settings),
        flow_run_filter=in_states(types),
        sort=FlowRunSort.START_TIME_DESC,
    )
    return [
        run for run in runs if _home(run) == settings.home or not is_held(_home(run) / RUNNER_LOCK)
    ]


def _home(run: FlowRun) -> Path:
    return Path(str(run.parameters.get("home")))


def _children(client: SyncPrefectClient, parent: UUID) -> list[FlowRun]:
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]),
            state=in_states(UNFINISHED).state,
        )
    )


def _end_all(client: SyncPrefectClient, run: FlowRun) -> None:
    for child in _children(client, run.id):
        _end(client, child)
    _end(client, run)


def _end(client: SyncPrefectClient, run: FlowRun) -> None:
    end = Cancelled if run.state_type is StateType.CANCELLING else Crashed
    ended: State[Any] = end(
        message="The process of this run, or its runner, was stopped or killed."
    )
    client.set_flow_run_state(run.id, ended, force=True)


def of_federation(settings: FederationSettings) -> DeploymentFilter:
    """How Prefect is asked for the federation's deployment."""
    return DeploymentFilter(name=DeploymentFilterName(any_=[settings.federation]))


def in_states(types: list[StateType]) -> FlowRunFilter:
    """How Prefect is asked for runs in one of these states."""
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=types)))
