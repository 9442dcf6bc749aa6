"""What a person reads in a terminal: lines that can be pasted, and one message for every fault.

Paths and commands are never wrapped, coloured by guess or read as markup: a command that is pasted
with a line break in it runs without its last options.
"""

import shlex
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from data_contracts.errors import ConsortiaError

COMMAND_INDENT = "  "


def command_line(*arguments: object) -> str:
    """A command as one line for a shell, every argument quoted where it has to be."""
    return shlex.join(str(argument) for argument in arguments)


def say(console: Console, *lines: str) -> None:
    """Print each line as it is, however narrow the terminal."""
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def say_command(console: Console, *arguments: object) -> None:
    """Print a command on a line of its own."""
    say(console, COMMAND_INDENT + command_line(*arguments))


def plain_console() -> Console:
    """A console that prints what it is given: a path may contain what rich takes for markup."""
    return Console(markup=False, emoji=False)


def run_command_line(app: Callable[..., object], *arguments: Any, **options: Any) -> None:
    """Run a command; a fault that a person can mend becomes one message and exit code 1."""
    try:
        app(*arguments, **options)
    except ConsortiaError as error:
        _end(error)
    except OSError as error:
        _end(_refused_by_system(error))


def _refused_by_system(error: OSError) -> ConsortiaError:
    """What no reader or writer of a file has put into words of its own."""
    return ConsortiaError(
        str(error.filename or "the operating system"),
        expected="that it can be used",
        found=error.strerror or type(error).__name__,
        action="correct the path, its permissions or the machine, then run the command again",
    )


def _end(error: ConsortiaError) -> None:
    say_fault(error)
    sys.exit(1)


def say_fault(error: ConsortiaError) -> None:
    """The message of a fault, on stderr."""
    # Escaped, because a file's name may hold what a terminal obeys.
    text = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in f"error: {error}")
    Console(stderr=True, soft_wrap=True).print(text, style="red", markup=False, emoji=False)


def command(*arguments: object) -> str:
    """A command on a line of its own."""
    return COMMAND_INDENT + command_line(*arguments)
