"""A pytest plugin that deletes every guard once: `-p tests.chaos.deletion`.

The guarded modules are imported with their switches. All tests are collected once, in a process
that runs one of them, for what all share. Each question is answered by a child that it forks, so
that nothing which a test leaves behind reaches another one. First all tests run with every guard in
place, which says in which of them each guard acts; then, guard by guard, those tests without it, up
to the first that fails. First come those in which the fewest guards act, since they are about this
one, and of them the quickest.
"""

import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, MappingProxyType
from typing import Any, NoReturn, cast

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.chaos.guards import instrumented
from tests.chaos.rooms import ROOT, guarded_files, module_of
from tests.chaos.switchboard import BOARD

CHILDREN = 2
LIMIT_SECONDS = 300
"""For all tests of a guard."""
HANG_SECONDS, TIMES_SLOWER = 10.0, 10
"""A test that takes longer without a guard, and so many times longer than any of its file with
it, misses it."""
TESTS_SECONDS = 30.0
"""How long the tests that are asked about one guard took with it, in the order of asking."""
SHARED = "tiny_model"
"""The fixture of a session that takes long to make."""
FIRST = 8
"""So many tests of a file are asked before the rest of any."""
SAY_SECONDS = 15.0
"""Between two lines about how far it is."""


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
    trusted: list[str] = field(default_factory=list)

    @cached_property
    def guards_of(self) -> Counter[str]:
        """How many guards act in a test."""
        return Counter(test for tests in self.acted.values() for test in tests)

    def longest_beside(self, test: str) -> float:
        """Seconds of the slowest test of its file: one of them has made what they share."""
        return self._longest[_file_of(test)]

    @cached_property
    def _longest(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for test, taken in self.seconds.items():
            found[_file_of(test)] = max(found.get(_file_of(test), 0.0), taken)
        return found

    def order(self, test: str) -> tuple[int, float]:
        """Before others comes a test in which few guards act, and of those a quick one."""
        return self.guards_of[test], self.seconds[test]


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
    say = _sayer(session.config)
    items = {item.nodeid: item for item in session.items}
    began = time.monotonic()
    groups = json.loads(Path(session.config.getoption("--guards-groups")).read_text())
    _make_what_is_shared(session)
    say(f"{len(items)} tests with every guard in place")
    baseline = _baseline(items)
    took = time.monotonic() - began
    say(f"took {took:.0f} s; then without each of {len(groups)} groups of guards")
    outcomes = _deleted(items, baseline, groups, say)
    catching = {outcome.caught_by for outcome in outcomes}
    baseline.failed += _fails_alone(items, [name for name in items if name in catching])
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


def _make_what_is_shared(session: pytest.Session) -> None:
    """Runs one test of a federation, so that no child has to make the fixtures of the session and
    to ask what a process remembers: libraries, the tiny model, its modules."""
    from _pytest.runner import runtestprotocol

    federated = (i for i in session.items if SHARED in getattr(i, "fixturenames", ()))
    first = next(federated, None)
    if first is not None:
        # Followed by the session itself: all that is narrower is taken down.
        runtestprotocol(first, nextitem=cast(pytest.Item, session), log=False)


def _sayer(config: pytest.Config) -> Callable[[str], None]:
    """Writes a line beside what pytest captures of its tests."""
    reporter = config.pluginmanager.getplugin("terminalreporter")

    def say(line: str) -> None:
        reporter.ensure_newline()
        reporter.write_line(line, flush=True)

    return say


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
    for _, part in _answers(jobs, limit_seconds=3600):
        whole.seconds |= part["seconds"]
        whole.failed += part["failed"]
        whole.trusted += part["trusted"]
        for guard, tests in part["acted"].items():
            whole.acted.setdefault(guard, []).extend(tests)
    return whole


def _recorded(items: dict[str, pytest.Item], names: Sequence[str]) -> dict[str, Any]:
    found = Baseline()
    for name, failed in _run(items, names, found.seconds):
        if failed:
            found.failed.append(name)
    found.acted = {guard: list(tests) for guard, tests in BOARD.acted.items()}
    found.trusted = sorted(BOARD.trusted)
    return asdict(found)


def _deleted(
    items: dict[str, pytest.Item],
    baseline: Baseline,
    groups: Sequence[tuple[str, ...]],
    say: Callable[[str], None],
) -> list[Outcome]:
    asked = [_tests_of(group, baseline) for group in groups]
    jobs = [
        partial(_first_failure, items, group, tests, baseline)
        for group, tests in zip(groups, asked, strict=True)
    ]
    outcomes: list[Outcome] = []
    began = said = time.monotonic()
    for number, answer in _answers(jobs, LIMIT_SECONDS):
        outcome = Outcome(tuple(groups[number]), answer or None, len(asked[number]))
        outcomes.append(outcome)
        if outcome.caught_by is None:
            say(f"no test of {outcome.tests} fails without {' and '.join(outcome.off)}")
        if time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            say(f"{len(outcomes)} of {len(groups)} groups in {said - began:.0f} s")
    return outcomes


def _tests_of(group: Collection[str], baseline: Baseline) -> list[str]:
    """Those to be asked about a group, in their order.

    File by file, because what the tests of one share is made anew whenever one of another comes
    between; the first few of each before the rest of any.
    """
    acted = {test for guard in group for test in baseline.acted.get(guard, [])}
    by_file: dict[str, list[str]] = defaultdict(list)
    for test in sorted(acted - set(baseline.failed), key=baseline.order):
        by_file[_file_of(test)].append(test)
    parts = [tests[:FIRST] for tests in by_file.values()]
    parts += [tests[FIRST:] for tests in by_file.values()]
    until, asked = 0.0, list[str]()
    for test in chain.from_iterable(parts):
        until += baseline.seconds[test]
        if until > TESTS_SECONDS and asked:
            break
        asked.append(test)
    return asked


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def _fails_alone(items: dict[str, pytest.Item], catching: Sequence[str]) -> list[str]:
    """Of the tests that missed a guard those that fail with every guard in place as well, where
    fewer run before them: nothing is said by them."""
    ((_, failed),) = _answers([partial(_failures, items, catching)], limit_seconds=3600)
    return list(failed)


def _failures(items: dict[str, pytest.Item], names: Sequence[str]) -> list[str]:
    return [name for name, failed in _run(items, names, {}) if failed]


def _first_failure(
    items: dict[str, pytest.Item], off: Iterable[str], tests: Sequence[str], baseline: Baseline
) -> str:
    BOARD.off = frozenset(off)
    # The test that is asked first may be the one with the key that another test trusts.
    BOARD.trusted.update(baseline.trusted)
    limits = {test: HANG_SECONDS + TIMES_SLOWER * baseline.longest_beside(test) for test in tests}
    return next((name for name, failed in _run(items, tests, {}, limits) if failed), "")


def _run(
    items: dict[str, pytest.Item],
    names: Sequence[str],
    seconds: dict[str, float],
    limits: Mapping[str, float] = MappingProxyType({}),
) -> Iterator[tuple[str, bool]]:
    from _pytest.runner import runtestprotocol

    for number, name in enumerate(names, start=1):
        after = names[number] if number < len(names) else None
        began, BOARD.test = time.monotonic(), name
        # The time limit of pytest-timeout is set around what is called here.
        signal.setitimer(signal.ITIMER_REAL, limits.get(name, 0.0))
        item = items[name]
        reports = runtestprotocol(item, nextitem=items[after] if after else None, log=False)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        seconds[name] = time.monotonic() - began
        yield name, any(report.failed for report in reports)


def _answers(jobs: Sequence[Callable[[], Any]], limit_seconds: float) -> Iterator[tuple[int, Any]]:
    """The number of each job and what it returns in a child of its own, as JSON, in the order in
    which they end; None for one that does not."""
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
                    del running[child]
                    yield number, _read_answer(Path(directory) / f"{number}")
                elif time.monotonic() > until:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    del running[child]
                    yield number, None
            time.sleep(0.002)


def _answer(job: Callable[[], Any], into: Path) -> NoReturn:
    """In the child, which ends here: what pytest does at its end is for the parent to do.

    It also ends with a test that does not: without its guard, so that test is the answer.
    """

    def hangs(number: int, frame: object) -> NoReturn:
        into.write_text(json.dumps(BOARD.test))
        os._exit(0)

    try:
        signal.signal(signal.SIGALRM, hangs)
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
