"""`make` on a machine that lacks something says so in one message, before anything is installed."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def set_up(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", str(ROOT / "infra" / "setup_environment.sh"), str(tmp_path / "venv")],
        cwd=ROOT,
        env=dict(os.environ) | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_python_that_is_too_old_is_named(tmp_path: Path) -> None:
    # Answers the version question as Python 3.9 would, and fails the comparison.
    old = script(tmp_path / "python3.9", 'case "$2" in *print*) echo 3.9;; *) exit 1;; esac')
    done = set_up(tmp_path, PYTHON=old)
    assert done.returncode == 1
    assert "expected 3.11 or newer; found 3.9" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_missing_python_is_named(tmp_path: Path) -> None:
    done = set_up(tmp_path, PYTHON=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "install Python 3.11 or newer" in done.stderr
