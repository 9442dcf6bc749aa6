"""Processes are recorded, stopped exactly, and die with their parent unless kept."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from data_contracts.errors import ConsortiaError
from infra.processes.local_processes import (
    LocalProcess,
    recorded_processes,
    start_process,
    stop_recorded,
    wait_until,
)
from infra.stack.local_ports import free_port, is_free, require_free

ENV = {"PATH": os.environ["PATH"]}
SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
    "time.sleep(60)",
]

OUTLIVED = [
    sys.executable,
    "-c",
    "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); "
    "print('up', flush=True); ctypes.CDLL(None).pthread_exit(None)",
]
"""Its first thread ends and the second one goes on, with whatever files and ports there are."""


def test_a_later_command_stops_what_an_earlier_one_started(tmp_path: Path) -> None:
    first = start_process("first", SLEEPER, tmp_path, env=ENV)
    second = start_process("second", SLEEPER, tmp_path, env=ENV)
    assert recorded_processes(tmp_path) == [first, second]
    assert sorted(stop_recorded(tmp_path)) == ["first", "second"]
    assert not first.is_running()
    assert not second.is_running()
    assert stop_recorded(tmp_path) == []


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    process = start_process("stubborn", STUBBORN, tmp_path, env=ENV)
    _wait(lambda: process.log_tail() == "up")
    process.stop(grace_seconds=0.3)
    assert not process.is_running()
    assert not psutil.pid_exists(process.pid)


def test_a_process_runs_until_its_last_thread_has_ended(tmp_path: Path) -> None:
    process = start_process("outlived", OUTLIVED, tmp_path, env=ENV)
    _wait(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert process.is_running()
    process.kill()
    assert not process.is_running()
    assert not psutil.pid_exists(process.pid)


def test_a_recycled_pid_is_never_signalled(tmp_path: Path) -> None:
    other = start_process("other", SLEEPER, tmp_path / "other", env=ENV)
    try:
        record = tmp_path / "processes" / "stale.json"
        record.parent.mkdir()
        stale = {"name": "stale", "pid": other.pid, "started_at": other.started_at - 3600}
        record.write_text(json.dumps(stale))
        assert stop_recorded(tmp_path) == []
        assert other.is_running()
        assert not record.exists()
    finally:
        other.stop()


def test_a_second_start_is_refused(tmp_path: Path) -> None:
    process = start_process("only", SLEEPER, tmp_path, env=ENV)
    try:
        with pytest.raises(ConsortiaError, match=f"found process {process.pid}"):
            start_process("only", SLEEPER, tmp_path, env=ENV)
    finally:
        process.stop()


def test_a_failed_start_shows_the_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no disk here'); raise SystemExit(3)"]
    process = start_process("failing", command, tmp_path, env=ENV)
    with pytest.raises(ConsortiaError, match=r"it ended; its log ends with\nno disk here"):
        wait_until(lambda: False, process, timeout_seconds=10)
    assert recorded_processes(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent death signal is Linux's")
@pytest.mark.parametrize("keep", [False, True])
def test_a_child_outlives_a_killed_parent_only_when_kept(tmp_path: Path, keep: bool) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from infra.processes.local_processes import start_process\n"
        f"start_process('child', [sys.executable, '-c', 'import time; time.sleep(60)'],"
        f" Path({str(tmp_path)!r}), env={{}}, keep={keep})\n"
        "time.sleep(60)"
    )
    repository = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=repository)
    _wait(lambda: bool(recorded_processes(tmp_path)))
    (child,) = recorded_processes(tmp_path)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    if keep:
        time.sleep(0.3)
        assert child.is_running()
        assert stop_recorded(tmp_path) == ["child"]
    else:
        _wait(lambda: not child.is_running())


def test_a_taken_port_names_its_owner() -> None:
    port = free_port()
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        assert not is_free(port)
        with pytest.raises(ConsortiaError, match=rf"taken by .*\(process {os.getpid()}\).*0 takes"):
            require_free(port, "a test")
    assert is_free(port)


def test_a_taken_port_names_the_option_that_chooses_another() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with pytest.raises(ConsortiaError, match=r"choose another port with --s3-port \(0 takes"):
            require_free(server.getsockname()[1], "a test", "--s3-port")


@pytest.mark.parametrize("port", [-1, 65_536, 70_000, 2**40])
def test_a_port_that_cannot_exist_is_refused(port: int) -> None:
    assert not is_free(port)
    with pytest.raises(ConsortiaError, match=r"expected a port from 1 to 65535; found none that"):
        require_free(port, "a test")


def test_a_wait_that_is_interrupted_leaves_no_process(tmp_path: Path) -> None:
    process = start_process("sleeper", SLEEPER, tmp_path, env=ENV)

    def interrupted() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_until(interrupted, process, 60)
    assert not process.is_running()
    assert recorded_processes(tmp_path) == []


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_value_finds_its_files(tmp_path: Path) -> None:
    process = LocalProcess("gone", 2**22 + 1, 0.0, tmp_path)
    assert not process.is_running()
    assert process.log_tail() == "no log"
    process.stop()
