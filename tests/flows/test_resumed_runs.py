"""What a runner ends and asks for again after another one was killed: decisions and processes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun, StateType

from flows.deployment.orphaned_processes import RUNNER_HOME, end_orphans
from flows.deployment.resumed_runs import (
    LAST_ROUND_NAME,
    LastRound,
    remember_last_round,
    remembered_last_round,
    resumed_line,
    resumed_parameters,
    times_resumed,
    to_resume,
)


def run(state: StateType, until_round: int | None = 7) -> FlowRun:
    return FlowRun(
        flow_id=uuid4(),
        name="brave-fox",
        state_type=state,
        parameters={"home": "fed", "until_round": until_round},
    )


@pytest.mark.parametrize("state", [StateType.RUNNING, StateType.PENDING])
def test_what_was_under_way_is_resumed(state: StateType) -> None:
    left = run(state)
    assert to_resume([left], left) == [left]
    assert to_resume([left], run(StateType.CRASHED)) == [left]


@pytest.mark.parametrize(
    "state", [StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CANCELLING]
)
def test_what_ended_by_itself_or_by_its_operator_is_not(state: StateType) -> None:
    left = run(state)
    assert to_resume([left] if state is StateType.CANCELLING else [], left) == []


def test_a_run_that_crashed_with_its_runner_is_resumed_unless_another_was_started_since() -> None:
    crashed = run(StateType.CRASHED)
    assert to_resume([], crashed) == [crashed]
    assert to_resume([], run(StateType.COMPLETED)) == []
    assert to_resume([], None) == []


def test_a_scheduled_night_stays_one_round(tmp_path: Path) -> None:
    night, other = run(StateType.RUNNING, None), run(StateType.RUNNING, None)
    assert remembered_last_round(tmp_path) is None
    assert resumed_parameters(night, None)["until_round"] is None
    remember_last_round(tmp_path, LastRound(str(night.id), 12))
    last = remembered_last_round(tmp_path)
    assert resumed_parameters(night, last) == {"home": "fed", "until_round": 12}
    assert resumed_parameters(other, last)["until_round"] is None
    assert resumed_line(night, run(StateType.SCHEDULED, 12)) == (
        "flow run brave-fox was killed: brave-fox resumes it (rounds up to 12)"
    )


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"flow_run": "a"}', b"null", b"\xff"])
def test_a_damaged_memory_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / LAST_ROUND_NAME).write_bytes(data)
    assert remembered_last_round(tmp_path) is None


def test_runs_that_follow_killed_ones_are_counted() -> None:
    assert times_resumed([]) == 0
    assert times_resumed(["oncology"]) == 0
    assert times_resumed(["oncology", "resumed-0"]) == 0
    assert times_resumed(["resumed-2", "oncology"]) == 2
    assert times_resumed(["resumed-trial"]) == 0


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Sleepers of two homes and of none; the first has a child."""
    sleep = "import time; time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{sleep}'])"
    of = {"parent": (parent, "fed"), "other": (sleep, "fed-2"), "none": (sleep, None)}
    started = {}
    for name, (code, home) in of.items():
        named = {} if home is None else {RUNNER_HOME: str((tmp_path / home).resolve())}
        started[name] = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **named})
    yield started
    for process in started.values():
        process.kill()
        process.wait()


def test_only_the_orphans_of_this_home_are_ended(
    processes: dict[str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    parent = psutil.Process(processes["parent"].pid)
    deadline = time.monotonic() + 30
    while not parent.children() and time.monotonic() < deadline:
        time.sleep(0.05)
    (child,) = parent.children()
    assert end_orphans(tmp_path / "nowhere") == 0
    assert end_orphans(tmp_path / "fed") == 2
    assert not any(process.is_running() for process in (parent, child))
    assert processes["other"].poll() is None
    assert processes["none"].poll() is None
    assert end_orphans(tmp_path / "fed") == 0
