"""Rounds that were under way when their flow run was killed are asked for again.

Nothing but the request is repeated: the new run goes on from the signed records in storage. A
killed run is followed by one other at most, whoever asks for it and however often: the runner that
saw its process die, or the next one that finds it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType

from infra.disk.durable_files import write_durably

LAST_ROUND_NAME = "last-round.json"
MAX_RESUMED = 3
"""How often in a row a running runner asks again for rounds whose process keeps being killed, say
by the kernel for want of memory. A runner that is started anew asks once more."""

_TAG = "resumed-"


@dataclass(frozen=True)
class LastRound:
    """The last round that a flow run was to run, which it found out where nobody had said."""

    flow_run: str
    until_round: int


def remember_last_round(home: Path, last: LastRound) -> None:
    """Before a run's first round: a scheduled night that is resumed stays one round."""
    fields = {"flow_run": last.flow_run, "until_round": last.until_round}
    write_durably(home / LAST_ROUND_NAME, json.dumps(fields).encode())


def remembered_last_round(home: Path) -> LastRound | None:
    """What the newest flow run remembered; None where none got that far."""
    try:
        fields = json.loads((home / LAST_ROUND_NAME).read_bytes())
        return LastRound(str(fields["flow_run"]), int(fields["until_round"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def to_resume(unfinished: list[FlowRun], newest: FlowRun | None) -> list[FlowRun]:
    """Of the runs that an earlier runner left, those to ask for again.

    `unfinished` has those that still seem to run, `newest` is the last that was started. A run that
    somebody cancels stays cancelled; one that crashed with its runner was under way as well.
    """
    under_way = [run for run in unfinished if run.state_type is not StateType.CANCELLING]
    if not unfinished and newest is not None and newest.state_type is StateType.CRASHED:
        return [newest]
    return under_way


def resumed_parameters(run: FlowRun, last: LastRound | None) -> dict[str, Any]:
    """Those of the run, with the last round that it had found out."""
    parameters = dict(run.parameters)
    if last is not None and last.flow_run == str(run.id):
        parameters["until_round"] = last.until_round
    return parameters


def times_resumed(tags: list[str]) -> int:
    """How many killed runs in a row a run follows."""
    counts = [tag.removeprefix(_TAG) for tag in tags if tag.startswith(_TAG)]
    return max((int(count) for count in counts if count.isdecimal()), default=0)


def resume(client: SyncPrefectClient, run: FlowRun, home: Path, times: int) -> FlowRun | None:
    """Ask for a killed run's rounds again; None where that was done before."""
    if run.deployment_id is None:
        return None
    again = client.create_flow_run_from_deployment(
        run.deployment_id,
        parameters=resumed_parameters(run, remembered_last_round(home)),
        tags=[*(tag for tag in run.tags if not tag.startswith(_TAG)), f"{_TAG}{times}"],
        idempotency_key=f"resume-{run.id}",
    )
    was_asked = again.state_type is not StateType.SCHEDULED
    return None if was_asked else again


def resumed_line(run: FlowRun, again: FlowRun) -> str:
    """Which rounds go on, in which run."""
    last = again.parameters.get("until_round")
    rounds = "one round" if last is None else f"rounds up to {last}"
    return f"flow run {run.name} was killed: {again.name} resumes it ({rounds})"


def resume_killed(client: SyncPrefectClient, run: FlowRun) -> str | None:
    """Ask for the rounds of a run that was killed under this runner, unless that is hopeless.

    Returns the line that says so; None where they were asked for before.
    """
    times = times_resumed(run.tags) + 1
    if times > MAX_RESUMED:
        return f"flow run {run.name} was killed, the {times}th in a row: not asked for again"
    again = resume(client, run, Path(run.parameters["home"]), times)
    return resumed_line(run, again) if again is not None else None


def resume_crashed(flow: object, flow_run: FlowRun, state: State[Any]) -> None:  # noqa: ARG001 - Prefect names them
    """Prefect's hook, in the runner, for a flow run whose process ended without a word."""
    with get_client(sync_client=True) as client:
        line = resume_killed(client, flow_run)
    if line is not None:
        print(line)  # noqa: T201 - the runner's own output is where its operator looks
