"""`make check-wheels`: which pinned packages the package index has no wheel of.

A package without a wheel is built from source where it is installed, which fails on a machine
without a compiler and goes unnoticed where pip has kept a wheel from an earlier day. So the index
itself is asked, for every version in constraints.txt, Python and kind of machine that we support.
"""

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version
from rich.console import Console

from data_contracts.errors import ConsortiaError
from infra.terminal import run_command_line

CONSTRAINTS = Path("constraints.txt")
PYTHONS = ((3, 11), (3, 12), (3, 13))
MACHINES = ("x86_64", "aarch64")
NEWEST_GLIBC = 28
"""Minor version of the newest glibc 2 that a wheel may ask for; PyTorch's own ask for 2.28."""
SOURCE_ALLOWED = frozenset({"deepspeed"})
"""What may come as source: pure Python when it is built without PyTorch, as set-up does it."""

_JSON = "application/vnd.pypi.simple.v1+json"  # PEP 691
_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  # PEP 600
_TIMEOUT_SECONDS = 60.0
_AT_ONCE = 8


@dataclass(frozen=True)
class Place:
    """A Python on a kind of Linux machine."""

    python: tuple[int, int]
    machine: str

    def __str__(self) -> str:
        return f"{self.python[0]}.{self.python[1]} {self.machine}"

    def tags(self) -> frozenset[Tag]:
        """Tags of the wheels that pip installs there (PEP 425)."""
        platforms = []
        for minor in range(NEWEST_GLIBC, 4, -1):
            platforms.append(f"manylinux_2_{minor}_{self.machine}")
            if minor in _LEGACY:
                platforms.append(f"{_LEGACY[minor]}_{self.machine}")
        platforms.append(f"linux_{self.machine}")
        interpreter = f"cp{self.python[0]}{self.python[1]}"
        return frozenset(cpython_tags(self.python, platforms=platforms)) | frozenset(
            compatible_tags(self.python, interpreter, platforms)
        )


PLACES = tuple(Place(python, machine) for python in PYTHONS for machine in MACHINES)


def pins(constraints: Path) -> dict[str, str]:
    """Version by name; raises ConsortiaError for a line that is no exact pin."""
    found = {}
    for line in constraints.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, version = line.partition("==")
        try:
            found[Requirement(name).name] = str(Version(version))
        except (InvalidRequirement, InvalidVersion):
            raise ConsortiaError(
                constraints.name,
                expected="name==version in every line",
                found=line,
                action="pin the version that was tested",
            ) from None
    return found


def places_without_wheel(filenames: Iterable[str], version: str) -> list[Place]:
    """Where none of an index page's files is a wheel of `version` that pip would install."""
    tags: set[Tag] = set()
    for filename in filenames:
        try:
            _, of, _, wheel_tags = parse_wheel_filename(filename)
        except InvalidWheelFilename:
            continue  # a source archive, or a name from before PEP 427
        if of == Version(version):
            tags |= wheel_tags
    return [place for place in PLACES if not tags & place.tags()]


def index_address() -> str:
    """The index that pip would ask: from its settings, or its own default."""
    for line in reversed(_pip("config", "list").splitlines()):
        if match := re.fullmatch(r"\S+\.index-url='(\S+)'", line):
            return match[1]
    match = re.search(r"default\s+(https://\S+?)\)", _pip("download", "--help"))
    if match is None:
        raise ConsortiaError(
            "package index",
            expected="its address in pip's settings or in `pip download --help`",
            found="none",
            action="set PIP_INDEX_URL",
        )
    return match[1]


def filenames_of(client: httpx.Client, index: str, package: str) -> list[str] | str:
    """Names of a package's files, or why the index does not say."""
    name = re.sub(r"[-_.]+", "-", package).lower()  # PEP 503
    try:
        answer = client.get(f"{index.rstrip('/')}/{name}/")
        answer.raise_for_status()
        return [file["filename"] for file in answer.json()["files"]]
    except httpx.HTTPStatusError as error:  # its text would show the password in an address
        return f"{error.response.status_code} {error.response.reason_phrase}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__
    except (ValueError, LookupError, TypeError):
        return "an answer that is no page of PEP 691"


def check_wheels(constraints: Path, index: str, console: Console) -> bool:
    """Print what has no wheel somewhere, and what could not be asked; whether all is well."""
    versions = pins(constraints)
    certificates = _certificates(os.environ.get("PIP_CERT"))
    with (
        httpx.Client(
            headers={"Accept": _JSON},
            timeout=_TIMEOUT_SECONDS,
            follow_redirects=True,
            verify=certificates,
        ) as client,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        answers = pool.map(lambda name: filenames_of(client, index, name), versions)
        pages = dict(zip(versions, answers, strict=True))
    all_is_well = True
    for name, page in pages.items():
        if isinstance(page, str):
            console.print(f"not reached  {name}: {page}")
            all_is_well = False
        elif missing := places_without_wheel(page, versions[name]):
            allowed = name in SOURCE_ALLOWED
            where = "anywhere" if len(missing) == len(PLACES) else ", ".join(map(str, missing))
            console.print(
                f"{'allowed' if allowed else 'no wheel':13}{name} {versions[name]}: {where}"
            )
            all_is_well = all_is_well and allowed
    console.print(f"{len(pages)} packages, for {', '.join(map(str, PLACES))}")
    return all_is_well


def _certificates(authorities: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=authorities)
    except OSError as error:
        raise ConsortiaError(
            "PIP_CERT",
            expected="a file of certificates in PEM",
            found=f"{authorities}: {error.strerror or error}",
            action="correct or unset it",
        ) from None


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Exit 1 unless every pin that may not come as source has a wheel everywhere."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if not check_wheels(CONSTRAINTS, index_address(), console):
        sys.exit(1)


if __name__ == "__main__":
    run_command_line(main)
