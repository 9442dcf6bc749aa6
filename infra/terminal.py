"""What a person reads in a terminal: lines that can be pasted, and one message for every fault.

Paths and commands are never wrapped, coloured by guess or read as markup: a command that is pasted
with a line break in it runs without its last options.
"""

import shlex
import sys
from collections.abc import Callable

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


def run_command_line(app: Callable[[], object]) -> None:
    """Run a command; a fault that a person can mend becomes one message and exit code 1."""
    try:
        app()
    except ConsortiaError as error:
        Console(stderr=True, soft_wrap=True).print(
            f"error: {error}", style="red", markup=False, highlight=False
        )
        sys.exit(1)
