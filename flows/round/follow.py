"""`consortia round watch`: what a round waits for, then its silos' progress.

A storage that goes away meanwhile is waited for, as the round itself does.
"""

import time

from rich.console import Console
from rich.live import Live

from aggregator.coordinator import Coordinator
from aggregator.decisions.stage import Stage
from flows.round.storage_outage import OutageWait
from flows.round.waiting import what_is_waited_for
from flows.round.watch import RoundView, render_round, view_round
from infra.terminal import say

WATCH_SECONDS = 1.0
WAITING_SECONDS = 5.0


def follow_round(c: Coordinator, console: Console, number: int | None) -> None:
    """Return once round `number`, or the newest for None, is reported."""
    storage = OutageWait(c.clock, lambda line: say(console, line))
    _wait_for_plan(c, console, storage, number or 1)
    with Live(console=console, refresh_per_second=2) as live:
        while True:
            view = storage.through(None, lambda: view_round(c))
            live.update(render_round(view))
            if view.stage is Stage.REPORTED or _number(view) > (number or _number(view)):
                return
            time.sleep(WATCH_SECONDS)


def _wait_for_plan(c: Coordinator, console: Console, storage: OutageWait, number: int) -> None:
    """Until the plan is there, print what is waited for as often as that changes."""
    said: list[str] = []
    while _number(storage.through(None, lambda: view_round(c))) < number:
        lines = storage.through(None, lambda: what_is_waited_for(c))
        if lines != said:
            say(console, *lines)
        said = lines
        time.sleep(WAITING_SECONDS)


def _number(view: RoundView) -> int:
    return view.plan.record.round if view.plan is not None else 0
