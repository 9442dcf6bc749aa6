"""A pytest plugin that deletes every guard once: `-p tests.chaos.deletion`.

The guarded modules are imported with their switches. All tests are collected once, in a process
that runs none of them; each question is answered by a child that it forks, so that nothing which a
test leaves behind reaches another one. First all tests run with every guard in place, which says in
which of them each guard acts; then, guard by guard, those tests without it, the quickest first, up
to the first that fails.
"""

import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.chaos.guards import instrumented
from tests.chaos.rooms import ROOT, guarded_files, module_of
from tests.chaos.switchboard import BOARD

CHILDREN = 2
LIMIT_SECONDS = 600
"""For all tests of a guard; one that hangs without it fails by its own time limit."""
TESTS_SECONDS = 30.0
"""How long the tests that are asked about one guard took with it, the quickest first."""


class SwitchedLoader(SourceFileLoader):
    """Compiles a guarded module with its switches, and keeps no compiled file."""

    def get_code(self, fullname: str) -> CodeType:
        path = Path(self.path)
        found = instrumented(path.read_text(), path.relative_to(ROOT).as_posix())
        return compile(found.tree, self.path, "exec", dont_inherit=True)


class SwitchedFinder:
    """Finds the guarded modules before anybody else does."""

    def __init__(self) -> None:
        self._paths = {module_of(path): ROOT / path for path in guarded_files()}

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        file = self._paths.get(fullname)
        if file is None:
            return None
        is_package = file.name == "__init__.py"
        return spec_from_file_location(
            fullname,
            file,
            loader=SwitchedLoader(fullname, str(file)),
            submodule_search_locations=[str(file.parent)] if is_package else None,
        )


def _install() -> None:
    loaded = sorted(module_of(path) for path in guarded_files() if module_of(path) in sys.modules)
    if loaded:
        raise RuntimeError(f"expected guarded modules not to be imported yet, found {loaded}")
    sys.meta_path.insert(0, SwitchedFinder())
    # The same cases every time, and no search for the smallest one: that a test fails is enough.
    settings.register_profile(
        "deletion",
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("deletion")


_install()


@dataclass
class Baseline:
    """With every guard in place: how long tests took, which failed, and who acted where."""

    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    acted: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What the tests said without some guards: the first that failed, or None."""

    off: tuple[str, ...]
    caught_by: str | None
    tests: int


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("guards")
    group.addoption("--guards-into", help="file for the outcomes, JSON")
    group.addoption("--guards-groups", help="file with the guards to delete together, JSON")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """In place of running the tests."""
    into = session.config.getoption("--guards-into")
    items = {item.nodeid: item for item in session.items}
    began = time.monotonic()
    baseline = _baseline(items)
    groups = json.loads(Path(session.config.getoption("--guards-groups")).read_text())
    outcomes = list(_deleted(items, baseline, groups))
    catching = items.keys() & {outcome.caught_by for outcome in outcomes}
    baseline.failed += _fails_alone(items, sorted(catching, key=baseline.seconds.__getitem__))
    Path(into).write_text(
        json.dumps(
            {
                "failed": baseline.failed,
                "outcomes": [asdict(outcome) for outcome in outcomes],
                "seconds": time.monotonic() - began,
            },
            indent=1,
        )
    )
    session.testsfailed = len(baseline.failed)
    return True


def _baseline(items: dict[str, pytest.Item]) -> Baseline:
    """In two children, each with whole files, the larger ones first."""
    by_file: dict[Path, list[str]] = defaultdict(list)
    for name, item in items.items():
        by_file[item.path].append(name)
    shares: list[list[str]] = [[] for _ in range(CHILDREN)]
    for names in sorted(by_file.values(), key=len, reverse=True):
        min(shares, key=len).extend(names)
    jobs = [partial(_recorded, items, share) for share in shares]
    whole = Baseline()
    for part in _answers(jobs, limit_seconds=3600):
        whole.seconds |= part["seconds"]
        whole.failed += part["failed"]
        for guard, tests in part["acted"].items():
            whole.acted.setdefault(guard, []).extend(tests)
    return whole


def _recorded(items: dict[str, pytest.Item], names: Sequence[str]) -> dict[str, Any]:
    found = Baseline()
    for name, failed in _run(items, names, found.seconds):
        if failed:
            found.failed.append(name)
    found.acted = {guard: list(tests) for guard, tests in BOARD.acted.items()}
    return asdict(found)


def _deleted(
    items: dict[str, pytest.Item], baseline: Baseline, groups: Sequence[tuple[str, ...]]
) -> Iterator[Outcome]:
    def tests_of(group: tuple[str, ...]) -> list[str]:
        acted = {test for guard in group for test in baseline.acted.get(guard, [])}
        quickest = sorted(acted - set(baseline.failed), key=lambda name: baseline.seconds[name])
        until = accumulate(baseline.seconds[name] for name in quickest)
        return [n for n, sum_ in zip(quickest, until, strict=True) if sum_ <= TESTS_SECONDS]

    jobs = [partial(_first_failure, items, group, tests_of(group)) for group in groups]
    for group, answer in zip(groups, _answers(jobs, LIMIT_SECONDS), strict=True):
        yield Outcome(tuple(group), answer or None, len(tests_of(group)))


def _fails_alone(items: dict[str, pytest.Item], catching: Sequence[str]) -> list[str]:
    """Of the tests that missed a guard those that fail with every guard in place as well, in the
    order in which they ran then: nothing is said by them."""
    (failed,) = _answers([partial(_failures, items, catching)], limit_seconds=3600)
    return list(failed)


def _failures(items: dict[str, pytest.Item], names: Sequence[str]) -> list[str]:
    return [name for name, failed in _run(items, names, {}) if failed]


def _first_failure(items: dict[str, pytest.Item], off: Iterable[str], names: Sequence[str]) -> str:
    BOARD.off = frozenset(off)
    return next((name for name, failed in _run(items, names, {}) if failed), "")


def _run(
    items: dict[str, pytest.Item], names: Sequence[str], seconds: dict[str, float]
) -> Iterator[tuple[str, bool]]:
    from _pytest.runner import runtestprotocol

    for number, name in enumerate(names, start=1):
        after = names[number] if number < len(names) else None
        began, BOARD.test = time.monotonic(), name
        item = items[name]
        reports = runtestprotocol(item, nextitem=items[after] if after else None, log=False)
        seconds[name] = time.monotonic() - began
        yield name, any(report.failed for report in reports)


def _answers(jobs: Sequence[Callable[[], Any]], limit_seconds: float) -> list[Any]:
    """What each job returns in a child of its own, as JSON; None for one that does not end."""
    answers: list[Any] = [None] * len(jobs)
    running: dict[int, tuple[int, float]] = {}
    waiting = list(enumerate(jobs))[::-1]
    with TemporaryDirectory() as directory:
        while waiting or running:
            while waiting and len(running) < CHILDREN:
                number, job = waiting.pop()
                child = os.fork()
                if child == 0:
                    _answer(job, Path(directory) / f"{number}")
                running[child] = (number, time.monotonic() + limit_seconds)
            for child, (number, until) in list(running.items()):
                if os.waitpid(child, os.WNOHANG)[0] == child:
                    answers[number] = _read_answer(Path(directory) / f"{number}")
                elif time.monotonic() > until:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                else:
                    continue
                del running[child]
            time.sleep(0.002)
    return answers


def _answer(job: Callable[[], Any], into: Path) -> NoReturn:
    """In the child, which ends here: what pytest does at its end is for the parent to do."""
    try:
        into.write_text(json.dumps(job()))
        os._exit(0)
    except BaseException as error:
        into.with_suffix(".fault").write_text(f"{type(error).__name__}: {error}")
    os._exit(1)


def _read_answer(path: Path) -> Any:
    """Raises RuntimeError where the child ended without one, which says nothing about a guard."""
    if path.exists():
        return json.loads(path.read_bytes())
    fault = path.with_suffix(".fault")
    said = fault.read_text() if fault.exists() else "no word"
    raise RuntimeError(f"expected an answer of the child, found {said}")
