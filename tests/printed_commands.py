"""What the commands print for people to paste: found in their output and parsed, not run."""

import re
import shlex
from typing import Any

import typer

from flows.cli import app as consortia
from silo_agent.cli import app as silo_agent

_PROGRAMS = {
    "consortia": typer.main.get_command(consortia),
    "silo-agent": typer.main.get_command(silo_agent),
}
_OWN_LINE = re.compile(r"^\s*((?:consortia|silo-agent) .+?)\s*$", re.MULTILINE)
_QUOTED = re.compile(r"`((?:consortia|silo-agent) [^`\n]*)`")


def printed_commands(output: str) -> list[list[str]]:
    """Every command in `output`, as a shell would split it.

    Fails for a quotation that a line break cuts in two, and for one with an open quote.
    """
    broken = [line for line in output.splitlines() if line.count("`") % 2]
    assert broken == [], "a command in backticks goes over a line's end"
    on_own_lines = [shlex.split(found) for found in _OWN_LINE.findall(output)]
    return on_own_lines + [shlex.split(found) for found in _QUOTED.findall(output)]


def require_known(command: list[str]) -> None:
    """Fail unless the subcommand and every option and argument of `command` exist."""
    node: Any = _PROGRAMS[command[0]]
    arguments = command[1:]
    while hasattr(node, "commands"):
        assert arguments, f"{command} ends before its subcommand"
        assert arguments[0] in node.commands, f"{arguments[0]} of {command}"
        node, arguments = node.commands[arguments[0]], arguments[1:]
    _, left, _ = node.make_parser(node.context_class(node)).parse_args(list(arguments))
    assert not left, f"{left} of {command}"


def require_pasteable(output: str) -> int:
    """Check every command in `output`; returns how many there were."""
    commands = printed_commands(output)
    for command in commands:
        require_known(command)
    return len(commands)
