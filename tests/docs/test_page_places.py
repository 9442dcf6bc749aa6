"""Every file, module, name and link that a page mentions is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import PACKAGES, PAGES, ROOT, anchors, inline_code, name_of, text_of

_ROOMS = "|".join((*PACKAGES, "benchmarks", "docs", "tests", r"\.ci"))
_PATH = re.compile(rf"(?<![\w./:-])(?:{_ROOMS})/[\w./*-]*\w/?")
_MODULE = re.compile(rf"(?:{_ROOMS})(?:\.\w+)+")
_FILE = re.compile(r"[\w-]+\.(?:py|j2)")
_NAME_IN = re.compile(rf"`(\w+)` in\s`((?:{_ROOMS})/[\w./-]*)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@cache
def file_names() -> frozenset[str]:
    """Names of all files in the packages."""
    folders = (*PACKAGES, "benchmarks", "tests")
    return frozenset(path.name for folder in folders for path in (ROOT / folder).rglob("*.*"))


def is_there(path: str) -> bool:
    """Whether a file, a folder, a module without its ending, or a pattern of them exists."""
    path = path.rstrip("/")
    return any(True for _ in ROOT.glob(path)) or any(True for _ in ROOT.glob(f"{path}.py"))


def names_in(place: Path) -> set[str]:
    """Classes, functions and constants at the top of a module, or of all modules of a folder."""
    modules = [place] if place.is_file() else place.rglob("*.py")
    return {name for module in modules for name in _names(module)}


@cache
def _names(module: Path) -> frozenset[str]:
    names = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(names)


def is_module(dotted: str) -> bool:
    """Whether `a.b.c` is a module or a package, or a name in one."""
    path = dotted.replace(".", "/")
    parent, _, name = path.rpartition("/")
    module = ROOT / f"{parent}.py"
    return is_there(path) or (module.exists() and name in _names(module))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_are_there(page: Path) -> None:
    gone = [path for path in _PATH.findall(text_of(page)) if not is_there(path)]
    assert gone == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_modules_and_files_are_there(page: Path) -> None:
    code = inline_code(page)
    gone = [name for name in code if _MODULE.fullmatch(name) and not is_module(name)]
    gone += [name for name in code if _FILE.fullmatch(name) and name not in file_names()]
    assert gone == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_are_where_the_page_says(page: Path) -> None:
    said = _NAME_IN.findall(text_of(page))
    gone = [(name, place) for name, place in said if name not in names_in(ROOT / place)]
    assert gone == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(text_of(page)):
        if not link.startswith(("http://", "https://", "mailto:")):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{name_of(page)}: {link}"
            assert not anchor or anchor in anchors(target), f"{name_of(page)}: {link}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=name_of)
def test_readme_leads_to_every_page(page: Path) -> None:
    assert f"({name_of(page)})" in text_of(ROOT / "README.md")


def test_the_index_leads_to_every_decision() -> None:
    index = ROOT / "docs" / "decisions" / "README.md"
    decisions = {path.name for path in index.parent.glob("0*.md")}
    assert set(_LINK.findall(text_of(index))) == decisions


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_names_every_room(package: str) -> None:
    rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    said = text_of(ROOT / "ARCHITECTURE.md")
    assert [room for room in sorted(rooms) if f"`{package}/{room}/`" not in said] == []


def test_what_is_gone_is_noticed() -> None:
    assert not is_there("aggregator/no_such_room/file.py")
    assert not is_module("silo_agent.release.release.NoSuchName")
    assert "NoSuchName" not in names_in(ROOT / "silo_agent" / "release")
    assert "Release" in names_in(ROOT / "silo_agent" / "release")
    assert is_module("silo_agent.release.release.Release")
