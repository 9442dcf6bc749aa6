"""The hook of a commit, CI and `make check` are one thing: none can pass what another fails."""

import re
import subprocess
from itertools import combinations

import pytest
import yaml
from _pytest.mark.expression import Expression

from tests.docs.pages import ROOT

MARKS = ("long", "campaign")
TOOLS = ("ruff format --check", "ruff check", "lint-imports", "mypy")


def commands_of(target: str) -> list[str]:
    """What `make` would run for a target once the environment is there."""
    ready = re.search(r"^READY := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert ready is not None
    marker = ready[1].replace("$(VENV)", ".venv")
    done = subprocess.run(
        ["/usr/bin/env", "make", "--no-print-directory", "-n", "-o", marker, target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_check_is_format_lint_imports_and_types() -> None:
    checks = commands_of("check")
    assert [tool for tool in TOOLS if not any(tool in line for line in checks)] == []
    assert len(checks) == len(TOOLS)


@pytest.mark.parametrize("target", ["test", "chaos"])
def test_tests_begin_with_the_check(target: str) -> None:
    checks = commands_of("check")
    assert commands_of(target)[: len(checks)] == checks
    assert "pytest" in commands_of(target)[-1]


@pytest.mark.parametrize(
    "marks", [marks for n in range(len(MARKS) + 1) for marks in combinations(MARKS, n)]
)
def test_what_one_target_leaves_out_another_runs(marks: tuple[str, ...]) -> None:
    def has(name: str, /, **_: str | int | bool | None) -> bool:
        return name in marks

    targets = [Expression.compile(_marks_of(each)) for each in ("test", "test-long", "chaos")]
    assert any(target.evaluate(has) for target in targets)


def _marks_of(target: str) -> str:
    found = re.search(r"-m (?:\"([^\"]+)\"|(campaign))$", commands_of(target)[-1])
    assert found is not None
    return found[1] or found[2]


def test_the_hook_of_a_commit_is_the_check_and_nothing_else() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (repository,) = config["repos"]
    (hook,) = repository["hooks"]
    assert repository["repo"] == "local"
    assert (hook["entry"], hook["language"]) == ("make check", "system")
    assert (hook["always_run"], hook["pass_filenames"]) == (True, False)
    assert not {"files", "exclude", "types", "stages", "args"} & (hook.keys() | config.keys())


def test_ci_runs_the_commands_that_readme_names_and_no_other_check() -> None:
    (ci,) = (path for path in (ROOT / ".ci").iterdir() if path.is_file())
    lines = ci.read_text().splitlines()
    assert [line for line in lines if re.search(r"\bmake\b", line)] == [
        "make test",
        "make test-long",
    ]
    assert lines[-1] == "make test-long"
    assert not re.search(r"\b(ruff|mypy|pytest|lint-imports)\b", ci.read_text())
