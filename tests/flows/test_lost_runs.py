"""Flow runs whose process is gone and whose runner could not say so, on a real Prefect server."""

import os
import subprocess
import sys
import time
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    temporary_settings,
)
from prefect.states import Cancelling, Pending, Running

from aggregator.settings.federation import FederationSettings
from flows.deployment.deployments import register
from flows.deployment.orphaned_processes import RUNNER_HOME
from flows.deployment.orphaned_runs import LostRuns, lost_runs_resumed
from flows.deployment.prefect_faults import PrefectUnavailableError
from flows.deployment.resumed_runs import MAX_RESUMED
from infra.stack.local_ports import free_port
from tests.flows.prefect_client import client as client
from tests.flows.prefect_client import federation as federation

pytestmark = pytest.mark.stack


def started(
    client: SyncPrefectClient, deployment: str, tags: tuple[str, ...] = (), until_round: int = 3
) -> FlowRun:
    """A run that is under way as far as Prefect knows, with no process."""
    run = client.create_flow_run_from_deployment(
        UUID(deployment), parameters={"until_round": until_round}, tags=list(tags)
    )
    states: list[State[Any]] = [Pending(), Running()]
    for state in states:
        client.set_flow_run_state(run.id, state, force=True)
    return run


def state_of(client: SyncPrefectClient, run: FlowRun) -> StateType | None:
    return client.read_flow_run(run.id).state_type


def test_a_run_without_a_process_at_two_looks_is_asked_for_again(
    client: SyncPrefectClient, federation: FederationSettings
) -> None:
    run, lost = started(client, register(federation).id), LostRuns(federation)
    assert lost.look() == []
    assert state_of(client, run) is StateType.RUNNING, "its runner may be about to say so"
    (line,) = lost.look()
    assert line.startswith(f"flow run {run.name} was killed: ")
    assert line.endswith("resumes it (rounds up to 3)")
    assert state_of(client, run) is StateType.CRASHED
    assert lost.look() == lost.look() == []


def test_one_with_a_process_runs_on(
    client: SyncPrefectClient, federation: FederationSettings
) -> None:
    run, lost = started(client, register(federation).id), LostRuns(federation)
    environ = os.environ | {RUNNER_HOME: str(federation.home.resolve())}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=environ, stdin=-1) as process:
        assert lost.look() == lost.look() == []
        assert state_of(client, run) is StateType.RUNNING
        process.communicate(b"\n")
    assert lost.look() == []
    assert len(lost.look()) == 1


def test_a_cancelled_one_only_ends_and_a_hopeless_one_is_not_asked_for_again(
    client: SyncPrefectClient, federation: FederationSettings
) -> None:
    deployment, lost = register(federation).id, LostRuns(federation)
    cancelled = started(client, deployment)
    client.set_flow_run_state(cancelled.id, Cancelling(), force=True)
    hopeless = started(client, deployment, (f"resumed-{MAX_RESUMED}",))
    assert lost.look() == []
    (line,) = lost.look()
    assert line == f"flow run {hopeless.name} was killed, the 4th in a row: not asked for again"
    assert state_of(client, cancelled) is StateType.CANCELLED
    assert state_of(client, hopeless) is StateType.CRASHED


def test_looks_go_on_beside_the_runner_until_it_ends(
    client: SyncPrefectClient, federation: FederationSettings
) -> None:
    run, said = started(client, register(federation).id), list[str]()
    with lost_runs_resumed(federation, said.append, seconds=0.05):
        deadline = time.monotonic() + 60
        while not said and time.monotonic() < deadline:
            time.sleep(0.05)
    assert [line.split(":")[0] for line in said] == [f"flow run {run.name} was killed"]
    later = started(client, register(federation).id)
    time.sleep(0.5)
    assert state_of(client, later) is StateType.RUNNING, "nobody looks any more"


def test_while_prefect_is_away_nothing_is_said(federation: FederationSettings) -> None:
    away = {
        PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api",
        PREFECT_CLIENT_MAX_RETRIES: 0,
        PREFECT_SERVER_EPHEMERAL_ENABLED: False,
    }
    with temporary_settings(updates=away):
        with pytest.raises(PrefectUnavailableError):
            LostRuns(federation).look()
        with lost_runs_resumed(federation, pytest.fail, seconds=0.02):
            time.sleep(0.5)
