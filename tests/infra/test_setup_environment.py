"""Set-up on machines that lack something, and set-up that was interrupted.

A project of two small packages stands for the real one, so that the real script and the real pip
run without the network.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra.loopback import LOOPBACK, no_proxy_here
from tests.wheel_samples import build_wheel

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "infra" / "setup_environment.sh"

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "small"
version = "1"
"""

BACKEND = """\
import zipfile
def build_editable(directory, config_settings=None, metadata_directory=None):
    name = "small-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{directory}/{name}", "w") as wheel:
        wheel.writestr("small-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: small\\n"
                       "Version: 1\\nProvides-Extra: dev\\nRequires-Dist: numpy\\n")
        wheel.writestr("small-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("small-1.dist-info/RECORD", "")
    return name
"""


def set_up(venv: Path, project: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", str(SCRIPT), str(venv)],
        cwd=project,
        env=dict(os.environ) | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class SmallProject:
    """A project that the script can set up from a folder of wheels, in a path with a space."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "my work"
        self.venv = self.folder / ".venv"
        self.wheels = folder / "wheels"
        self.folder.mkdir()
        self.wheels.mkdir()
        (self.folder / "pyproject.toml").write_text(PYPROJECT)
        (self.folder / "backend.py").write_text(BACKEND)
        (self.folder / "constraints.txt").write_text("torch==1.0\nnumpy==1.0\n")
        for name in ("torch", "numpy"):
            build_wheel(self.wheels, name, "1.0", {f"{name}.py": b""})

    def set_up(self, **env: str) -> subprocess.CompletedProcess[str]:
        offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        return set_up(Path(".venv"), self.folder, PYTHON=sys.executable, **(offline | env))

    def imports(self, name: str) -> bool:
        command = [str(self.venv / "bin" / "python"), "-c", f"import {name}"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def dist_info(self, name: str) -> Path:
        (found,) = self.venv.glob(f"lib/python*/site-packages/{name}-*.dist-info")
        return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> SmallProject:
    """Set up once, with a caller's settings that would lead pip astray."""
    project = SmallProject(tmp_path_factory.mktemp("set-up"))
    elsewhere = project.folder.parent / "elsewhere"
    elsewhere.mkdir()
    wheel = build_wheel(elsewhere, "torch", "1.0", {"torch.py": b""})
    shutil.unpack_archive(wheel, elsewhere, "zip")
    done = project.set_up(
        PYTHONPATH=str(elsewhere),
        PIP_TARGET=str(elsewhere),
        PIP_PYTHON="/usr/bin/python3",
        PIP_NO_DEPS="1",
        PIP_DRY_RUN="1",
        PIP_USER="1",
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "Installing torch==1.0" in done.stdout, "somebody else's does not count"
    assert project.imports("torch")
    return project


def test_a_finished_set_up_is_left_alone(project: SmallProject) -> None:
    stamp = project.venv / ".installed"
    before = stamp.stat().st_mtime_ns
    done = project.set_up(PIP_FIND_LINKS="/nowhere")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert stamp.stat().st_mtime_ns == before


def test_an_environment_without_pip_is_made_again_and_by_one_of_two(project: SmallProject) -> None:
    (project.venv / ".installed").unlink()
    shutil.rmtree(project.dist_info("pip").parent / "pip")
    env = dict(os.environ) | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project.wheels)}
    env["PYTHON"] = sys.executable
    command = ["/bin/bash", str(SCRIPT), ".venv"]
    both = [
        subprocess.Popen(command, cwd=project.folder, env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = sorted(process.communicate(timeout=120)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert printed[0] == "Another make is installing; waiting for it ...\n"
    assert "Installing Consortia" in printed[1]
    assert project.imports("torch") and project.imports("pip")


def test_what_pip_did_not_finish_is_installed_again(project: SmallProject) -> None:
    (project.venv / ".installed").unlink()
    for name in ("torch", "numpy"):
        (project.dist_info(name) / "INSTALLER").unlink()
    (project.dist_info("numpy").parent / "numpy.py").unlink()
    done = project.set_up()
    assert done.returncode == 0, done.stderr
    assert "Installing torch==1.0" in done.stdout
    for name in ("torch", "numpy"):
        assert project.imports(name)
        assert (project.dist_info(name) / "INSTALLER").exists()


def test_an_interruption_is_said_and_nothing_else(project: SmallProject) -> None:
    (project.venv / ".installed").unlink()
    log = project.venv / "set-up.log"
    with socket.socket() as silent:  # An index that takes the call and never answers.
        silent.bind((LOOPBACK, 0))
        silent.listen()
        silent.settimeout(60)
        index = f"http://{LOOPBACK}:{silent.getsockname()[1]}/simple"
        process = subprocess.Popen(
            ["/bin/bash", str(SCRIPT), ".venv"],
            cwd=project.folder,
            env=os.environ | no_proxy_here() | {"PYTHON": sys.executable, "PIP_INDEX_URL": index},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert silent.accept()
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert said == "Interrupted. Run it again to go on from here.\n", log.read_text()
    assert process.returncode == 130
    assert project.set_up().returncode == 0


def test_what_pip_says_of_a_failure_is_in_one_message(project: SmallProject) -> None:
    (project.venv / ".installed").unlink()
    (project.folder / "constraints.txt").write_text("torch==2.0\nnumpy==1.0\n")
    (project.dist_info("torch") / "INSTALLER").unlink()
    done = project.set_up()
    assert done.returncode == 1
    (message,) = done.stderr.splitlines()
    assert message.startswith("error: installing: expected pip to succeed; found ERROR: ")
    assert "torch==2.0" in message
    assert "set-up.log" in message
    assert not (project.venv / ".installed").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    done = set_up(tmp_path / "file" / "venv", PYTHON=sys.executable)
    assert done.returncode == 1
    (message,) = done.stderr.splitlines()
    assert "expected a folder that can be written" in message


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_python_that_is_too_old_is_named(tmp_path: Path) -> None:
    # Answers the version question as Python 3.9 would, and fails the comparison.
    old = script(tmp_path / "python3.9", 'case "$2" in *print*) echo 3.9;; *) exit 1;; esac')
    done = set_up(tmp_path / "venv", PYTHON=old)
    assert done.returncode == 1
    assert "expected 3.11 or newer; found 3.9" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_missing_python_is_named(tmp_path: Path) -> None:
    done = set_up(tmp_path / "venv", PYTHON=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "install Python 3.11 or newer" in done.stderr
