"""How every command ends: one message on stderr instead of a traceback, and an exit code."""

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console

from data_contracts.errors import ConsortiaError


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
    # Escaped, because a file's name may hold what a terminal obeys.
    text = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in f"error: {error}")
    Console(stderr=True, soft_wrap=True).print(text, style="red", markup=False, emoji=False)
    sys.exit(1)
