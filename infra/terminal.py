"""How every command ends: one message on stderr instead of a traceback, and an exit code."""

import sys
from collections.abc import Callable

from rich.console import Console

from data_contracts.errors import ConsortiaError


def run_command_line(app: Callable[[], object]) -> None:
    """Run a command; a fault that a person can mend becomes one message and exit code 1."""
    try:
        app()
    except ConsortiaError as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="red", markup=False)
        sys.exit(1)
