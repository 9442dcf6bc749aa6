"""What `silo-agent status` shows of an agent, at work or not, on any terminal and on none."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from data_contracts.protocol.records import Status
from infra.clock import SystemClock
from silo_agent.loop import only_agent
from silo_agent.release.kill_switch import KillSwitch
from silo_agent.release.outbox import OUTBOX, Outbox
from silo_agent.release.status_reporter import STATUS_NAME
from silo_agent.watching.agent_view import UNREADABLE, AgentView, said_lines, view_agent
from silo_agent.watching.follow import ENDED, follow_agent
from silo_agent.watching.screen import render_agent
from tests.aggregator.federation_samples import federation, key
from tests.silo_agent.gate_samples import SampleSilo

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
PLAN = federation().plan
TRAINING = Status.on(
    PLAN,
    NOW,
    silo=PLAN.record.cohort[0],
    number=1,
    phase="training",
    step=3,
    steps=20,
    tokens_per_second=Decimal("158.2"),
    eta_seconds=3725,
    memory_bytes=1_900_000_000,
    gpu_memory_bytes=20_100_000_000,
)
PLACE = f"round {PLAN.record.round} attempt {PLAN.record.attempt}"
VIEW = AgentView(
    pid=4242,
    since=NOW - timedelta(hours=1),
    version="0.1.0",
    is_stopped=False,
    is_restored=False,
    status=TRAINING,
    is_unreadable=False,
    ranks=(1_900_000_000, 1_800_000_000),
)
IDLE = replace(VIEW, status=TRAINING.model_copy(update={"phase": "done", "step": 0, "steps": 0}))
ENDED_AGENT = replace(VIEW, pid=None, since=None, ranks=())


def on_screen(view: AgentView, width: int, now: datetime = NOW) -> list[str]:
    console = Console(file=StringIO(), width=width, height=50, force_terminal=True, no_color=True)
    console.print(render_agent(view, now, console.width))
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in plain(console.file.getvalue()).splitlines()]


def plain(text: str) -> str:
    """Without what moves the cursor or changes the style."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_wide_screen_shows_everything_on_its_line() -> None:
    lines = on_screen(VIEW, 120, NOW + timedelta(seconds=4))
    shown = dict(line.split(maxsplit=1) for line in lines if not line.startswith(" "))
    assert shown == {
        "agent": "runs as process 4242",
        "round": f"{PLAN.record.round}, attempt {PLAN.record.attempt}, run {PLAN.record.run}",
        "phase": "training",
        "step": "3 of 20",
        "speed": "158.2 tokens/s",
        "left": "1:02:05",
        "GPU": "20.1 GB at most on the first rank's",
        "said": "0:00:04 ago",
        "ranks": "2 ranks, 1.9 GB the largest, 3.7 GB all",
    }
    assert sum("━" in line for line in lines) == 1


@pytest.mark.parametrize("view", [VIEW, IDLE, ENDED_AGENT, replace(VIEW, is_restored=True)])
@pytest.mark.parametrize("width", [80, 40, 20])
def test_a_narrow_one_loses_nothing(view: AgentView, width: int) -> None:
    lines = on_screen(view, width)
    assert max(map(len, lines)) <= width
    squeezed = "".join("".join(lines).split())
    for line in on_screen(view, 200):
        words = line.split(maxsplit=1)
        if "━" not in line:
            assert "".join(words[-1].split()) in squeezed, line


@pytest.mark.parametrize(
    ("view", "row"),
    [
        (IDLE, "ranks    2 ranks, 1.9 GB the largest, 3.7 GB all, idle"),
        (replace(IDLE, ranks=()), "ranks    none in memory"),
        (
            replace(IDLE, ranks=(5_000_000,)),
            "ranks    1 rank, 5.0 MB the largest, 5.0 MB all, idle",
        ),
        (replace(VIEW, is_stopped=True), "switch   STOP: nothing leaves"),
        (replace(VIEW, status=None), "last     nothing yet"),
        (replace(VIEW, status=None, is_unreadable=True), f"last     {UNREADABLE}"),
        (ENDED_AGENT, "agent    does not run"),
    ],
)
def test_what_is_and_what_is_not(view: AgentView, row: str) -> None:
    assert row in on_screen(view, 100)


def test_what_an_earlier_agent_said_is_not_what_this_one_does() -> None:
    killed = replace(VIEW, since=NOW + timedelta(seconds=1), ranks=())
    for view in (killed, ENDED_AGENT):
        lines = on_screen(view, 100, NOW + timedelta(days=2))
        assert not any(line.startswith(("left", "step", "phase")) for line in lines)
        assert any(line.startswith(f"last     {PLACE}: training, step 3") for line in lines)
        assert "said     2 days, 0:00:00 ago" in lines


HALF = TRAINING.model_dump_json()[:90].encode()


def test_a_round_that_the_silo_has_refused_is_said_to_be_whatever_it_did_before(
    tmp_path: Path,
) -> None:
    text = TRAINING.model_dump_json(exclude_none=True)
    (tmp_path / STATUS_NAME).write_text(text)
    assert "step 3 of 20" in view_agent(tmp_path).said
    silo = PLAN.record.cohort[0]
    refused = federation().refusal(silo, rule="release.too_few")
    Outbox(tmp_path / OUTBOX, key(silo)).keep(refused)
    assert view_agent(tmp_path).said == f"{PLACE}: refused by release.too_few"
    seen = replace(VIEW, refused_by="release.too_few")
    assert seen.working is None
    assert seen.are_idle
    later = TRAINING.model_copy(update={"attempt": PLAN.record.attempt + 1})
    (tmp_path / STATUS_NAME).write_text(later.model_dump_json(exclude_none=True))
    assert "step 3 of 20" in view_agent(tmp_path).said, "of another attempt"


@pytest.mark.parametrize("content", [b"", HALF, b"\xff\xfe", b"null", b"[]", b'{"kind": "later"}'])
def test_a_status_file_that_cannot_be_read_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATUS_NAME).write_bytes(content)
    view = view_agent(tmp_path)
    assert view.is_unreadable and view.status is None
    assert said_lines(view)[-1] == f"last    {UNREADABLE}"


def test_a_folder_in_its_place_too(tmp_path: Path) -> None:
    (tmp_path / STATUS_NAME).mkdir()
    assert view_agent(tmp_path).is_unreadable


def test_a_home_in_which_nothing_happened_yet(tmp_path: Path) -> None:
    view = view_agent(tmp_path)
    assert (view.pid, view.status, view.is_unreadable, view.ranks) == (None, None, False, ())
    assert [line.split()[0] for line in said_lines(view)] == ["agent", "version", "switch"]


def test_an_agent_that_runs_is_seen_with_when_it_was_started(tmp_path: Path) -> None:
    (tmp_path / STATUS_NAME).write_text(TRAINING.model_dump_json())
    with only_agent(tmp_path):
        view = view_agent(tmp_path)
    assert view.pid == os.getpid()
    assert view.since is not None and view.since <= datetime.now(UTC)
    assert "training, step 3 of 20" in said_lines(view)[-1]
    assert view_agent(tmp_path).pid is None


class Script(SystemClock):
    """A clock that does the next thing each time that somebody waits, then is interrupted."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self._steps = list(steps)

    def sleep(self, seconds: float) -> None:
        """Do the next thing at once."""
        if not self._steps:
            raise KeyboardInterrupt
        self._steps.pop(0)()


def watched(home: Path, clock: Script, **terminal: object) -> str:
    console = Console(file=StringIO(), no_color=True, **terminal)  # type: ignore[arg-type]
    follow_agent(home, console, clock)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_without_a_terminal_there_is_a_line_for_each_change(tmp_path: Path) -> None:
    path = tmp_path / STATUS_NAME

    def say(step: int) -> Callable[[], object]:
        status = TRAINING.model_copy(update={"step": step})
        return lambda: path.write_text(status.model_dump_json())

    nothing: Callable[[], object] = lambda: None  # noqa: E731 - a step of the script
    halved: Callable[[], object] = lambda: path.write_bytes(HALF)  # noqa: E731
    steps = (nothing, say(3), say(3), nothing, halved, say(4), KillSwitch(tmp_path).turn_on)
    lines = watched(tmp_path, Script(*steps), width=40).splitlines()
    said = f"agent does not run; {PLACE}: training, step {{}} of 20, 158.2 tokens/s"
    assert [line.partition(", 3725 s left")[0] for line in lines] == [
        "agent does not run; nothing yet",
        said.format(3),
        f"agent does not run; {UNREADABLE}",
        said.format(4),
        said.format(4).replace("run;", "run, the switch is on;"),
        ENDED,
    ]


@pytest.mark.parametrize("width", [80, 40])
def test_a_terminal_is_written_in_place_and_left_in_order(tmp_path: Path, width: int) -> None:
    path = tmp_path / STATUS_NAME
    path.write_text(TRAINING.model_dump_json())
    steps = (lambda: path.write_bytes(HALF), path.unlink)
    raw = watched(tmp_path, Script(*steps), width=width, force_terminal=True)
    assert "\x1b[1A" in raw, "the cursor goes up and writes over what was there"
    assert raw.count("\x1b[?25l") == raw.count("\x1b[?25h") == 1, "and is shown again"
    lines = [line.strip() for line in plain(raw).splitlines()]
    assert lines[-1] == ENDED
    assert any(line.startswith("last     nothing yet") for line in lines)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    raw = watched(tmp_path, Script(), force_terminal=True)
    assert plain(raw).splitlines() == ["agent does not run; nothing yet", ENDED]


@contextmanager
def watching(home: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-u", "-m", "silo_agent.cli", "status", "--watch", "--home"]
    with subprocess.Popen(
        [*command, str(home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


@pytest.mark.long
def test_ctrl_c_ends_the_command_in_one_line(tmp_path: Path) -> None:
    SampleSilo(tmp_path).write_config()
    (tmp_path / STATUS_NAME).write_bytes(HALF)
    with watching(tmp_path) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == f"agent does not run; {UNREADABLE}\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == f"{ENDED}\n"
        assert process.stderr.read() == ""
        assert process.wait(30) == 0
