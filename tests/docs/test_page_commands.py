"""Every command and option that a page names is one that exists."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest
from typer.exceptions import TyperException

from tests.docs.pages import PAGES, ROOT, fenced_lines, inline_code, name_of
from tests.flows.command_walk import APPS, EVERY, Command
from tests.printed_commands import require_known

_INNER = re.compile(r"\$\(((?:consortia|silo-agent) [^)]*)\)")
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


NAMES = {(command.program, *command.words): command for command in EVERY}


def called(name: tuple[str, ...]) -> list[Command]:
    """The commands of a name in full, or without its beginning: `add-silo`."""
    if name[0] in APPS:
        return [NAMES[name]] if name in NAMES else []
    return [command for full, command in NAMES.items() if full[-len(name) :] == name]


def meant(words: list[str]) -> list[tuple[Command, list[str]]] | None:
    """Every command that the words may mean, with the words after its name.

    None for what is no command of ours; empty for a stale name. `consortia federation` is every
    command of that group, and an option alone is one of any command.
    """
    if words[0].startswith("--"):
        return [(command, words) for command in EVERY]
    name = tuple(takewhile(lambda word: not word.startswith("--"), words))
    for length in range(len(name), 0, -1):
        if found := called(name[:length]):
            return [(command, words[length:]) for command in found]
    group = [command for full, command in NAMES.items() if full[: len(name)] == name]
    return [(command, words[len(name) :]) for command in group] if words[0] in APPS else None


def fits(command: Command, rest: list[str]) -> bool:
    """Whether `rest` are options and arguments of a command; the last option may lack its value."""
    valued = {given.name for given in command.given if given.takes_a_value}
    completed = [*rest, "VALUE"] if rest and rest[-1] in valued else rest
    if completed == ["--help"]:
        return True
    try:
        require_known([command.program, *command.words, *completed])
    except (AssertionError, TyperException):
        return False
    return True


def is_known(words: list[str]) -> bool:
    """Whether a quotation is no command of ours, or one that exists with all that it names."""
    found = meant(words)
    return found is None or any(fits(command, rest) for command, rest in found)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_gives_to_type_parses(page: Path) -> None:
    for line in fenced_lines(page):
        for command in commands_of(line):
            require_known(command)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_and_options_in_sentences_exist(page: Path) -> None:
    for code in inline_code(page):
        plain = code.replace("[", "").replace("]", "")
        split = shlex.split if plain.startswith(tuple(APPS)) else str.split
        for words in _alternatives(split(plain)):
            assert is_known(words), f"{name_of(page)}: `{code}`"


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
    ("code", "known"),
    [
        ("silo-agent checks", False),
        ("consortia federation add", False),
        ("silo-agent run --stop", False),
        ("add-silo --from-rounds 12", False),
        ("--no-such-option", False),
        ("consortia deploy now", False),
        ("consortia round abort REASON", False),
        ("consortia federation", True),
        ("federation init --stack", True),
        ("rotate-key --add-root KEY --threshold 2", True),
        ("silo-agent backup", True),
        ("aws iam create-access-key --user-name ...", True),
    ],
)
def test_a_stale_command_in_a_sentence_is_noticed(code: str, known: bool) -> None:
    assert is_known(code.split()) == known
