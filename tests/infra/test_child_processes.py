"""Children that end with their parent, however it ends, and what they leave."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from infra.processes.exit_codes import ORPHANED
from infra.processes.parent_pipe import PIPE_VARIABLE, parent_pipe
from infra.processes.process_tree import descendants, executes, kill_and_wait

SLEEPS = "import time; time.sleep(60)"
WATCHES = f"""
from infra.processes.parent_pipe import end_with_parent
end_with_parent()
print("watching", flush=True)
{SLEEPS}
"""
PARENT = f"""
import os, subprocess, sys, tempfile
from pathlib import Path
from infra.processes.parent_pipe import PIPE_VARIABLE, parent_pipe
with parent_pipe(Path(sys.argv[1])) as pipe:
    environment = os.environ | {{PIPE_VARIABLE: str(pipe)}}
    child = subprocess.Popen(
        [sys.executable, "-c", {WATCHES!r}], env=environment, stdout=subprocess.PIPE
    )
    child.stdout.readline()
    print(child.pid, flush=True)
    child.wait()
"""


def started(code: str, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
    )


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    with started(PARENT, str(tmp_path)) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    _, alive = psutil.wait_procs([child], timeout=20)
    assert alive == [] or not executes(child)


def test_a_child_ends_with_the_code_of_an_orphan_when_the_pipe_is_let_go(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    descriptor = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    with started(WATCHES, **{PIPE_VARIABLE: str(tmp_path / "pipe")}) as child:
        assert child.stdout
        assert child.stdout.readline() == b"watching\n"
        os.close(descriptor)
        assert child.wait(timeout=20) == ORPHANED


def test_after_the_block_nothing_runs_that_was_given_the_pipe(tmp_path: Path) -> None:
    """Not even what never watched it and has left its session and its parent."""
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEPS!r}], start_new_session=True)
print(child.pid, flush=True)
"""
    with parent_pipe(tmp_path) as pipe, started(code, **{PIPE_VARIABLE: str(pipe)}) as middle:
        assert middle.stdout
        left = psutil.Process(int(middle.stdout.readline()))
        assert middle.wait(timeout=20) == 0
        assert executes(left)
    assert not executes(left)


def test_a_process_without_a_pipe_is_not_watched() -> None:
    with started(WATCHES) as child:
        assert child.stdout
        assert child.stdout.readline() == b"watching\n"
        time.sleep(1)
        assert child.poll() is None
        child.kill()


def test_processes_below_one_are_found_and_killed() -> None:
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {SLEEPS!r}])
print(child.pid, flush=True)
child.wait()
"""
    with started(code) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        below = descendants(parent.pid)
        assert [process.pid for process in below] == [child]
        kill_and_wait(below)
        assert not any(map(executes, below))
    assert descendants(parent.pid) == []
