"""`silo-agent status --watch`: the agent of a home, looked at every second until Ctrl-C.

It only reads, so it can be started and ended at any time, and watches an agent that comes and goes.
"""

from pathlib import Path

from rich.console import Console
from rich.live import Live

from infra.clock import Clock
from infra.terminal import say
from silo_agent.watching.agent_view import AgentView, runs, view_agent
from silo_agent.watching.screen import render_agent

WATCH_SECONDS = 1.0
ENDED = "no longer watched; the agent is as it was"


def follow_agent(home: Path, console: Console, clock: Clock) -> None:
    """Show the agent until Ctrl-C: in place on a terminal, elsewhere a line for each change."""
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            _on_screen(home, console, clock)
        else:
            _in_lines(home, console, clock)
    except KeyboardInterrupt:
        say(console, ENDED)


def _on_screen(home: Path, console: Console, clock: Clock) -> None:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            table = render_agent(view_agent(home, with_adapter=False), clock.now(), console.width)
            live.update(table, refresh=True)
            clock.sleep(WATCH_SECONDS)


def _in_lines(home: Path, console: Console, clock: Clock) -> None:
    last = None
    while True:
        view = view_agent(home, with_adapter=False)
        if (change := _what_counts(view)) != last:
            say(console, _line(view))
        last = change
        clock.sleep(WATCH_SECONDS)


def _what_counts(view: AgentView) -> tuple[object, ...]:
    """What makes a new line; memory changes all the time."""
    return view.pid, view.is_stopped, view.said, len(view.ranks), view.are_idle


def _line(view: AgentView) -> str:
    switch = ", the switch is on" if view.is_stopped else ""
    at = f", at {view.status.issued_at:%H:%M:%S} UTC" if view.status is not None else ""
    ranks = f"; {view.ranks_said}" if view.ranks else ""
    return f"agent {runs(view)}{switch}; {view.said}{at}{ranks}"
