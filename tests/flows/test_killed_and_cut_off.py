"""Rounds that go on although storage goes away, and flow, runner or server are killed.

The tests of this module share a federation on a stack of their own, and run in order.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

import psutil
import pytest

from aggregator.decisions.stage import Stage
from aggregator.evidence.look import look
from aggregator.feed.reading import (
    newest_attempt,
    next_round,
    read_federation,
    read_report,
)
from data_contracts.protocol.records import RoundReport
from flows.deployment.orphaned_processes import flow_processes
from infra.processes.local_processes import LocalProcess, stop_recorded
from infra.stack.local_stack import (
    RunningPrefect,
    StoragePorts,
    ensure_auth_string,
    start_object_storage,
    start_prefect_server,
)
from tests.flows.flow_runs import left_running
from tests.flows.real_federation import RealFederation, wait_for

pytestmark = [pytest.mark.long, pytest.mark.stack, pytest.mark.timeout(900)]

ROUND_SECONDS = 300
AWAY_SECONDS = 15
SHORT_MINUTES = 0.5
MOMENTS = ((0, 12, 24), (4, 16, 28), (8, 20, 32), (36,))
"""In seconds after each of four rounds was asked for. A runner resumes killed flows three times in
a row, so no round has more."""

Victim = Literal["flow", "runner", "server"]


class CutOff(RealFederation):
    """A federation whose storage is its own, so that it can go away."""

    agents: tuple[LocalProcess, ...] = ()
    runner: LocalProcess

    def start_agents(self) -> None:
        """All three, unless they run."""
        if not self.agents:
            self.agents = tuple(self.start_agent(f"silo-{name}") for name in "abc")

    def stop_agents(self) -> None:
        """All three, if they run."""
        for agent in self.agents:
            agent.stop()
        self.agents = ()

    def serve(self) -> None:
        """Start a runner and wait until it serves."""
        log = self.state / "logs" / "runner.log"
        said_before = log.read_text().count("serving") if log.exists() else 0
        self.runner = self.start_runner()
        wait_for(
            "deployment", lambda: self.said().count("serving") > said_before, 90, (self.runner,)
        )

    def said(self) -> str:
        """Everything that the runners and their flow runs have printed."""
        return self.runner.log_path.read_text()

    def kill(self, victim: Victim) -> None:
        """SIGKILL, as the kernel does for want of memory."""
        if victim == "flow":
            for process in self.flow_processes():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        elif victim == "runner":
            self.runner.signal(signal.SIGKILL)
            wait_for("end", lambda: not self.runner.is_running(), 30, ())
        else:
            self.prefect.process.kill()

    def start_server(self) -> None:
        """The Prefect server again, where it was."""
        state_dir = self.prefect.process.state_dir
        auth = ensure_auth_string(state_dir / "prefect-auth")
        self.prefect = start_prefect_server(state_dir, self.prefect.port, auth)

    def flow_processes(self) -> list[psutil.Process]:
        """Everything that a runner of this federation has started, its own or an earlier one."""
        return flow_processes(self.home)

    def left_running(self) -> list[str]:
        """Flow runs of this federation that have not ended a minute after the report."""
        return left_running(self.home)

    def newest(self) -> tuple[int, int, bool]:
        """Round and number of the newest attempt, and whether it has its report."""
        c = self.coordinator()
        feed = read_federation(c)
        newest = newest_attempt(c, feed)
        if newest is None:
            return 0, 0, False
        plan = newest.plan
        return plan.record.round, plan.record.attempt, read_report(c, feed, plan) is not None

    def trains(self) -> bool:
        """Whether silo-a is training."""
        return self.status("silo-a").get("phase") == "training"

    def evaluates(self) -> bool:
        """Whether evaluations are waited for; an agent needs seconds to load the model for one."""
        c = self.coordinator()
        feed = read_federation(c)
        newest = newest_attempt(c, feed)
        return newest is not None and look(c, newest.plan, feed).stage is Stage.EVALUATING

    def next_round(self) -> int:
        """Number of the round that has no outcome yet."""
        c = self.coordinator()
        return next_round(c, read_federation(c))

    def wait_for_report(self, number: int) -> RoundReport:
        """The report of a round's first attempt."""
        everybody = (*self.agents, self.runner)
        return wait_for("report", lambda: self.reported(number, 1), ROUND_SECONDS, everybody)

    def go_away(self, seconds: float) -> None:
        """No storage for some seconds, and then the same one again."""
        self.storage.process.kill()
        time.sleep(seconds)
        self.storage = start_object_storage(self.storage.state_dir, self.storage.ports)


@pytest.fixture(scope="module")
def federation(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: RunningPrefect
) -> Iterator[CutOff]:
    directory = tmp_path_factory.mktemp("cut-off")
    storage = start_object_storage(directory / "storage", StoragePorts.automatic())
    federation = CutOff(directory, storage, prefect_server)
    federation.edit_settings(local_steps=20)
    yield federation
    stop_recorded(federation.state)
    stop_recorded(storage.state_dir)


@pytest.fixture(scope="module")
def served(federation: CutOff) -> CutOff:
    """With its agents and a runner."""
    federation.start_agents()
    federation.serve()
    return federation


def test_what_storage_says_for_good_ends_a_step_at_once(federation: CutOff) -> None:
    """A credential that is not known: no retry, and the message of the storage."""
    home = federation.directory / "with another key"
    shutil.copytree(federation.home, home)
    credentials = home / "keys" / "storage-credentials.toml"
    text = re.sub(r'secret_key = "...', 'secret_key = "xyz', credentials.read_text())
    assert text != credentials.read_text()
    credentials.write_text(text)
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from aggregator.coordinator import load_coordinator\n"
        "from flows.round.federated_round import open_task, outage_wait\n"
        "c = load_coordinator(Path(sys.argv[1]))\n"
        "open_task(c, outage_wait(c), 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(home)],
        env=dict(os.environ) | dict(federation.prefect.env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "check secret_key" in done.stderr
    assert "will start" not in done.stdout + done.stderr, "no retry"


@pytest.mark.campaign
def test_storage_goes_away_in_training_and_in_the_evaluation(served: CutOff) -> None:
    served.consortia("round", "start", "--home", str(served.home))
    everybody = (*served.agents, served.runner)
    for phase in (served.trains, served.evaluates):
        wait_for(phase.__name__, phase, ROUND_SECONDS, everybody)
        served.go_away(AWAY_SECONDS)
    report = served.wait_for_report(1)
    assert report.outcome == "published"
    said = served.said()
    assert "waiting for object storage" in said
    assert said.count("object storage answers again") >= 2
    assert "Traceback" not in said
    assert "retry" not in said.lower(), "an outage takes none of the retries"


@pytest.mark.campaign
def test_a_killed_flow_is_resumed_by_its_runner(served: CutOff) -> None:
    number = _start_short_round(served)
    served.kill("flow")
    _wait_for_abort(served)
    assert f"resumes it (rounds up to {number})" in served.said()
    assert served.left_running() == []


@pytest.mark.campaign
def test_a_killed_runner_is_followed_by_one_that_ends_its_orphan_and_resumes(
    served: CutOff,
) -> None:
    number, said_before = _start_short_round(served), served.said()
    served.kill("runner")
    orphans = served.flow_processes()
    assert orphans, "the flow run outlives its runner"
    served.serve()
    assert not any(process.is_running() for process in orphans)
    _wait_for_abort(served)
    said = served.said().removeprefix(said_before)
    assert said.count(f"resumes it (rounds up to {number})") == 1
    assert served.left_running() == []


def _start_short_round(federation: CutOff) -> int:
    """One attempt that nobody answers; what counts is that it comes to its report."""
    federation.stop_agents()
    federation.edit_settings(submit_minutes=SHORT_MINUTES, max_attempts=1)
    before = federation.newest()[:2]
    federation.consortia("round", "start", "--home", str(federation.home))
    runner = federation.runner
    wait_for("plan", lambda: federation.newest()[:2] != before, ROUND_SECONDS, (runner,))
    return federation.newest()[0]


def _wait_for_abort(federation: CutOff) -> None:
    """The newest attempt's report, which nobody typed anything for."""
    wait_for("report", lambda: federation.newest()[2], ROUND_SECONDS, (federation.runner,))
    number, attempt, _ = federation.newest()
    report = federation.reported(number, attempt)
    assert report is not None
    assert (report.outcome, report.rule) == ("aborted", "quorum.not_reached")


@pytest.mark.campaign
@pytest.mark.parametrize("moments", MOMENTS, ids=str)
@pytest.mark.parametrize("victim", ["flow", "runner", "server"])
def test_killed_at_ten_moments_in_four_rounds(
    served: CutOff, victim: Victim, moments: tuple[int, ...]
) -> None:
    """Each round is published once; nothing runs on beside it and nobody types `round start`."""
    served.start_agents()
    served.edit_settings(submit_minutes=30, max_attempts=2)
    number = served.next_round()
    served.consortia("round", "start", "--home", str(served.home))
    asked = time.monotonic()
    for moment in moments:
        time.sleep(max(0.0, asked + moment - time.monotonic()))
        served.kill(victim)
        if victim == "server":
            served.start_server()
        if not served.runner.is_running():
            served.serve()
    report = served.wait_for_report(number)
    assert report.outcome == "published"
    assert served.left_running() == []
    assert served.next_round() == number + 1
