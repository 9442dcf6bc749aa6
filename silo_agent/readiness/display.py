"""How the readiness of a silo is shown: a line for each item, and what to do on its own line."""

from rich.console import Console
from rich.text import Text

from infra.terminal import COMMAND_INDENT, say
from silo_agent.readiness.checklist import Item, State

STYLES: dict[State, str] = {
    "there": "green",
    "missing": "bold red",
    "wrong": "bold red",
    "warning": "yellow",
    "not checked": "dim",
}
STATE_WIDTH = max(map(len, STYLES))


def show_items(console: Console, items: list[Item]) -> None:
    """Nothing of it is wrapped, so that paths and commands can be pasted."""
    width = max(len(item.name) for item in items)
    for item in items:
        line = Text.assemble(
            (f"{item.state:<{STATE_WIDTH}}", STYLES[item.state]),
            f"  {item.name:<{width}}  ",
            item.detail,
        )
        console.print(line, soft_wrap=True, highlight=False)
        if item.next_step and item.is_command:
            say(console, "next:", COMMAND_INDENT + item.next_step)
        elif item.next_step:
            say(console, f"next: {item.next_step}")
