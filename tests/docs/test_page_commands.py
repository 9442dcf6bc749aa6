"""Every command and option that a page names is one that exists."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, fenced_lines, inline_code, name_of
from tests.flows.command_walk import APPS, EVERY
from tests.printed_commands import require_known

_INNER = re.compile(r"\$\(((?:consortia|silo-agent) [^)]*)\)")
_OPTION = re.compile(r"--[a-z][a-z0-9-]*")
_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


def commands_of(line: str) -> Iterator[list[str]]:
    """The commands of a line to type, each alternative of `a | b` by itself."""
    for inner in _INNER.findall(line):
        yield from commands_of(inner)
    if line.split(" ")[0] in APPS:
        yield from _alternatives(shlex.split(line, comments=True))


def _alternatives(words: list[str]) -> Iterator[list[str]]:
    """`round status | watch --home fed` is `round status --home fed` and `round watch ...`."""
    if "|" not in words:
        yield words
        return
    first = words.index("|") - 1
    last = first
    while last + 1 < len(words) and words[last + 1] == "|":
        last += 2
    for name in words[first : last + 1 : 2]:
        yield [*words[:first], name, *words[last + 1 :]]


OPTIONS = {
    (command.program, *command.words): {"--help", *(given.name for given in command.given)}
    for command in EVERY
}
"""Options of every command, by the words that name it."""


def named(words: list[str]) -> list[set[str]] | None:
    """Options of each command that the words before the first option may mean; none: a stale one.

    None where they are no command of ours. `add-silo` is `consortia federation add-silo`, and
    `consortia federation` is every command of that group.
    """
    if words[0].startswith("--"):
        return list(OPTIONS.values())
    before = tuple(takewhile(lambda word: not word.startswith("--"), words))
    beginnings = [before[:length] for length in range(len(before), 0, -1)]
    if words[0] in APPS:
        path = next((path for path in beginnings if path in OPTIONS), before)
        return [options for leaf, options in OPTIONS.items() if leaf[: len(path)] == path]
    return next((found for path in beginnings if (found := _ending_in(path))), None)


def _ending_in(path: tuple[str, ...]) -> list[set[str]]:
    return [options for leaf, options in OPTIONS.items() if leaf[-len(path) :] == path]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_gives_to_type_parses(page: Path) -> None:
    for line in fenced_lines(page):
        for command in commands_of(line):
            require_known(command)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_in_sentences_exist(page: Path) -> None:
    for code in inline_code(page):
        for words in _alternatives(code.replace("[", "").replace("]", "").split()):
            found = named(words)
            if found is not None:
                assert found, f"{name_of(page)}: no command `{code}`"
                options = set(_OPTION.findall(code))
                assert any(options <= known for known in found), f"{name_of(page)}: `{code}`"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_made_has_a_target(page: Path) -> None:
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text()))
    for code in [*inline_code(page), *fenced_lines(page)]:
        if code.startswith("make "):
            assert code.split()[1] in targets, f"{name_of(page)}: {code}"


@pytest.mark.parametrize(
    "line",
    [
        "consortia federation add-silos --home fed",
        "consortia round status | wait --home fed",
        "silo-agent check --datum",
        "consortia deploy now",
        'consortia federation add-silo --public-key "$(silo-agent keys --home north)"',
    ],
)
def test_a_stale_line_to_type_is_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"add-silos|wait|datum|now|keys"):
        for command in commands_of(line):
            require_known(command)


@pytest.mark.parametrize(
    ("code", "is_known"),
    [
        ("silo-agent checks", False),
        ("consortia federation add", False),
        ("silo-agent run --stop", False),
        ("add-silo --from-rounds 12", False),
        ("--no-such-option", False),
        ("consortia federation", True),
        ("federation init --stack", True),
        ("rotate-key --add-root KEY --threshold 2", True),
        ("silo-agent backup", True),
        ("aws iam create-access-key --user-name ...", True),
    ],
)
def test_a_stale_command_in_a_sentence_is_noticed(code: str, is_known: bool) -> None:
    found = named(code.split())
    options = set(_OPTION.findall(code))
    assert (found is None or any(options <= known for known in found)) == is_known
