"""A round as the demo shows it while it runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from aggregator.coordinator import Coordinator
from data_contracts.errors import StorageError
from flows.round.watch import describe_silo, render_round, view_round
from infra.terminal import say

LINE_EVERY_SECONDS = 15.0


class Shown:
    """Shows a round: as a live table in a terminal, as lines elsewhere."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self._console, self._live = console, live
        self._seen: dict[str, str] = {}
        self._last_line = 0.0

    def __call__(self, c: Coordinator) -> None:
        """Show the round as it is now."""
        try:
            view = view_round(c)
        except StorageError:
            return  # A display that misses one look must not end what it shows.
        if view.plan is None or view.stage is None:
            return
        title = f"round {view.plan.record.round}: {view.stage.value}"
        if self._seen.get("stage") != title:
            self._seen["stage"] = title
            say(self._console, title)
        if self._live is not None:
            self._live.update(render_round(view))
            return
        now = time.monotonic()
        for silo in view.silos:
            text = describe_silo(silo)
            if text == self._seen.get(f"{silo.silo} text"):
                continue
            changed = self._seen.get(silo.silo) != silo.doing
            if changed or now - self._last_line > LINE_EVERY_SECONDS:
                self._seen |= {silo.silo: silo.doing, f"{silo.silo} text": text}
                self._last_line = now
                say(self._console, f"  {text}")


@contextmanager
def shown(console: Console) -> Iterator[Shown]:
    """Live in a terminal, while the block runs."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            yield Shown(console, live)
    else:
        yield Shown(console, None)
