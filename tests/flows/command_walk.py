"""Every command of both programs, found by walking them, and how each of them ends."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.main import get_command
from typer.models import ArgumentInfo, OptionInfo

from flows.cli import app as consortia_app
from infra.terminal import run_command_line
from silo_agent.cli import app as silo_app

APPS = {"consortia": consortia_app, "silo-agent": silo_app}
PROGRAMS = {name: get_command(app) for name, app in APPS.items()}
Parser = Callable[..., Any]


@dataclass(frozen=True)
class Given:
    """An option or argument of a command, and what it takes."""

    name: str
    is_argument: bool
    is_required: bool
    info: OptionInfo | ArgumentInfo
    type: Any

    @property
    def takes_a_value(self) -> bool:
        return self.type is not bool

    @property
    def named(self) -> str:
        """As a message names it, in lower case."""
        return self.name.lstrip("-").replace("-", "_") if self.is_argument else self.name

    def words(self, value: str) -> list[str]:
        return [value] if self.is_argument else [f"{self.name}={value}"]


@dataclass(frozen=True)
class Command:
    """A command by the words that name it."""

    program: str
    words: tuple[str, ...]
    given: tuple[Given, ...]

    def line(self, sound: dict[Parser | type, str], wrong: Given, value: str) -> list[str]:
        """A command line in which only the value of `wrong` is a mistake."""
        arguments: list[str] = []
        options: list[str] = []
        for one in self.given:
            if one is wrong or one.is_required:
                text = value if one is wrong else sound[one.info.parser or one.type]
                (arguments if one.is_argument else options).extend(one.words(text))
        return [*self.words, *options, "--", *arguments]


def commands(program: str, app: typer.Typer, words: tuple[str, ...] = ()) -> Iterator[Command]:
    for found in app.registered_commands:
        assert found.callback is not None
        name = found.name or found.callback.__name__.replace("_", "-")
        yield Command(program, (*words, name), tuple(_given(found.callback)))
    for group in app.registered_groups:
        assert group.typer_instance is not None
        # Without a name its commands are the program's own.
        named = (group.name,) if isinstance(group.name, str) else ()
        yield from commands(program, group.typer_instance, (*words, *named))


def _given(callback: Callable[..., Any]) -> Iterator[Given]:
    required = callback.__code__.co_argcount - len(callback.__defaults__ or ())
    for position, (name, hint) in enumerate(_hints(callback)):
        assert get_origin(hint) is Annotated, f"{callback.__name__}: {name} has no help"
        type_, info = get_args(hint)
        # In Annotated the first name is taken for a default, and put right by typer when it runs.
        stated = (info.default, *(getattr(info, "param_decls", None) or ()))
        names = [word for word in stated if isinstance(word, str) and word[:2] == "--"]
        yield Given(
            (names or [f"--{name.replace('_', '-')}"])[0],
            isinstance(info, ArgumentInfo),
            position < required,
            info,
            _plain(type_),
        )


def _hints(callback: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    for name, hint in get_type_hints(callback, include_extras=True).items():
        if name != "return":
            yield name, hint


def _plain(hint: Any) -> Any:
    """The type of one value: without "or None" and without the list around it."""
    for inner in get_args(hint):
        if inner is not type(None):
            return _plain(inner)
    return hint


EVERY = tuple(command for name, app in APPS.items() for command in commands(name, app))


def everything_below(directory: Path) -> set[tuple[str, int]]:
    return {(str(path), path.lstat().st_mtime_ns) for path in directory.rglob("*")}


def ended(program: Parser, words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and what was said, on the way that both programs go."""
    with pytest.raises(SystemExit) as end:
        run_command_line(program, words)
    said = capsys.readouterr()
    assert said.out == ""
    code = end.value.code
    assert isinstance(code, int)
    return code, said.err


def one_message(said: str) -> str:
    """What was said without the frame that typer draws around it."""
    assert "Traceback" not in said
    assert not any(c < " " and c != "\n" for c in said), "what a terminal would obey"
    return " ".join(said.replace("│", " ").split())
