"""A package without a wheel is named with every Python and machine that has none."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.console import Console

from data_contracts.errors import ConsortiaError
from infra.check_wheels import (
    CONSTRAINTS,
    PLACES,
    SOURCE_ALLOWED,
    Place,
    check_wheels,
    index_address,
    pins,
    places_without_wheel,
)
from infra.loopback import LOOPBACK, no_proxy_here
from tests.loopback_server import answering

ROOT = Path(__file__).parents[2]
EVERYWHERE = [str(place) for place in PLACES]


@pytest.fixture(autouse=True)
def directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real index may be behind a proxy; the tests' own is on loopback."""
    for name, value in no_proxy_here().items():
        monkeypatch.setenv(name, value)


@contextmanager
def package_index(pages: dict[str, list[str]]) -> Iterator[str]:
    """A package index on loopback (PEP 691) that knows these file names and nothing else."""

    def page(path: str) -> tuple[int, bytes]:
        files = pages.get(path.strip("/").removeprefix("simple/"))
        listed = [{"filename": name} for name in files or []]
        return 404 if files is None else 200, json.dumps({"files": listed}).encode()

    with answering(page) as address:
        yield f"{address}/simple"


def checked(tmp_path: Path, constraints: str, pages: dict[str, list[str]]) -> tuple[bool, str]:
    file, printed = tmp_path / "constraints.txt", io.StringIO()
    file.write_text(constraints)
    with package_index(pages) as address:
        ok = check_wheels(file, address, Console(file=printed, soft_wrap=True, width=200))
    return ok, printed.getvalue()


@pytest.mark.parametrize(
    ("filenames", "missing"),
    [
        (["a-1.0.tar.gz"], EVERYWHERE),
        (["a-1.0-py3-none-any.whl"], []),
        (["a-1.0-py2.py3-none-any.whl"], []),
        (["a-1.0-py2-none-any.whl"], EVERYWHERE),
        (["a-1.1-py3-none-any.whl", "a-1.0.tar.gz"], EVERYWHERE),
        (
            ["a-1.0-cp311-cp311-macosx_11_0_arm64.whl", "a-1.0-cp311-cp311-win_amd64.whl"],
            EVERYWHERE,
        ),
        (["a-1.0-cp39-abi3-manylinux2014_x86_64.whl"], [p for p in EVERYWHERE if "aarch64" in p]),
        (
            ["a-1.0-cp312-cp312-manylinux_2_17_aarch64.manylinux2014_aarch64.whl"],
            [p for p in EVERYWHERE if p != "3.12 aarch64"],
        ),
        (
            ["a-1.0-cp313-abi3-manylinux_2_28_x86_64.whl"],
            [p for p in EVERYWHERE if p != "3.13 x86_64"],
        ),
        (["a-1.0-cp311-cp311-manylinux_2_34_x86_64.whl"], EVERYWHERE),
        (["a-1.0-py3-none-manylinux1_x86_64.whl"], [p for p in EVERYWHERE if "aarch64" in p]),
        (["a-1.0-cp313-cp313t-manylinux_2_28_x86_64.whl"], EVERYWHERE),
        (["a-1.0-1-py3-none-any.whl"], []),
        (["a-1.0.0-py3-none-any.whl"], []),
        (["not a file name", "a-1.0.whl", ""], EVERYWHERE),
        ([], EVERYWHERE),
    ],
)
def test_a_wheel_counts_where_pip_would_install_it(
    filenames: list[str], missing: list[str]
) -> None:
    assert [str(place) for place in places_without_wheel(filenames, "1.0")] == missing


def test_a_package_without_wheels_fails_the_check_and_is_named(tmp_path: Path) -> None:
    pages = {"a-hash": ["a_hash-1.0.tar.gz"], "b": ["b-2.0-py3-none-any.whl"]}
    ok, printed = checked(tmp_path, "a_Hash==1.0\nb==2.0\n", pages)
    assert not ok
    assert "no wheel     a_Hash 1.0: anywhere" in printed
    assert "b 2.0" not in printed


def test_wheels_for_some_places_only_name_the_others(tmp_path: Path) -> None:
    names = ["a-1.0-cp311-abi3-manylinux_2_17_x86_64.whl"]
    ok, printed = checked(tmp_path, "a==1.0\n", {"a": names})
    assert not ok
    assert "a 1.0: 3.11 aarch64, 3.12 aarch64, 3.13 aarch64" in printed


def test_what_may_come_as_source_passes_and_is_still_said(tmp_path: Path) -> None:
    ok, printed = checked(tmp_path, "deepspeed==0.1\n", {"deepspeed": ["deepspeed-0.1.tar.gz"]})
    assert ok
    assert "allowed      deepspeed 0.1: anywhere" in printed


def test_what_cannot_be_reached_is_named_and_fails(tmp_path: Path) -> None:
    ok, printed = checked(tmp_path, "a==1.0\nb==1.0\n", {"b": ["b-1.0-py3-none-any.whl"]})
    assert not ok
    assert "not reached  a: 404 Not Found" in printed
    file, said = tmp_path / "constraints.txt", io.StringIO()
    assert not check_wheels(file, f"http://{LOOPBACK}:9/simple", Console(file=said))
    assert said.getvalue().count("not reached") == 2


@pytest.mark.parametrize("line", ["a>=1.0", "a", "a==1.0,!=1.1", "a==1.0 # why", "a==1.*", "=="])
def test_every_line_is_one_exact_pin(tmp_path: Path, line: str) -> None:
    file = tmp_path / "constraints.txt"
    file.write_text(f"# comment\n\nb==2.0\n{line}\n")
    with pytest.raises(ConsortiaError, match="expected name==version in every line"):
        pins(file)


def test_pips_own_setting_chooses_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://packages.example/simple")
    assert index_address() == "https://packages.example/simple"


def test_without_a_setting_it_is_pips_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    address = index_address()
    assert address.startswith("https://") and address.endswith("/simple")


def environment_of(place: Place, patch: int) -> dict[str, str]:
    """The markers of PEP 508 there, with Python's patch release."""
    python = f"{place.python[0]}.{place.python[1]}"
    return {
        "python_version": python,
        "python_full_version": f"{python}.{patch}",
        "implementation_version": f"{python}.{patch}",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": place.machine,
        "platform_system": "Linux",
        "platform_release": "",
        "platform_version": "",
        "sys_platform": "linux",
        "os_name": "posix",
    }


def needed(environment: dict[str, str]) -> set[str]:
    """Every package that Consortia asks for there, by what the packages installed here state."""
    installed = {canonicalize_name(d.metadata["Name"]): d for d in distributions()}
    found: set[tuple[str, frozenset[str]]] = set()
    to_do = [("consortia", frozenset({"dev"}))]
    while to_do:
        name, extras = to_do.pop()
        if (name, extras) in found:
            continue
        found.add((name, extras))
        here = installed.get(canonicalize_name(name))
        for line in (here.requires or []) if here else []:
            asked = Requirement(line)
            if asked.marker is None or any(
                asked.marker.evaluate({**environment, "extra": extra}) for extra in {"", *extras}
            ):
                to_do.append((canonicalize_name(asked.name), frozenset(asked.extras)))
    return {name for name, _ in found} - {"consortia"}


@pytest.mark.parametrize("patch", [0, 9])
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_every_package_that_make_installs_is_pinned(place: Place, patch: int) -> None:
    pinned = {canonicalize_name(name) for name in _pins()}
    assert needed(environment_of(place, patch)) - pinned == set()


def test_this_environment_has_the_pinned_versions() -> None:
    pinned = {canonicalize_name(name): version for name, version in _pins().items()}
    installed = {canonicalize_name(d.metadata["Name"]): d.version for d in distributions()}
    differing = {
        name: version
        for name, version in installed.items()
        if name in pinned and version.partition("+")[0] != pinned[name]
    }
    assert differing == {}


def test_what_may_come_as_source_is_pinned() -> None:
    assert _pins().keys() >= SOURCE_ALLOWED


def _pins() -> dict[str, str]:
    return pins(ROOT / CONSTRAINTS)
