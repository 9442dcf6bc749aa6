"""An institution that drops out in the last round of the confidential demo, and what that costs.

Its agent is killed after it has sealed shares for the others, when they have begun to mask with it.
The operator waits for it no longer once the others have submitted; the others' shares take its pads
out of the sum. Later it comes back, and measures what was published without it.
"""

from collections.abc import Callable

from rich.console import Console

from aggregator.coordinator import Coordinator
from aggregator.decisions.stage import Stage
from aggregator.evidence.look import Look, look
from aggregator.feed.reading import newest_attempt, read_federation
from data_contracts.errors import ConsortiaError
from flows.round.operations import stop_waiting
from infra.processes.local_processes import LocalProcess
from infra.terminal import say


class DropOut:
    """Watches the round `number` and does to the agent of `silo` what it is about, once each.

    `restart` starts its agent again.
    """

    def __init__(
        self, silo: str, number: int, agent: LocalProcess, restart: Callable[[], LocalProcess]
    ) -> None:
        self.silo, self.agent = silo, agent
        self._number, self._restart = number, restart
        self._is_gone = self._was_left_out = self._is_back = False

    @property
    def is_away(self) -> bool:
        """Whether its agent is meant not to run."""
        return self._is_gone and not self._is_back

    def watch(self, c: Coordinator, console: Console) -> None:
        """Look at the round, and do what is due; a storage that does not answer is asked again."""
        if self._is_back:
            return
        try:
            seen = _seen(c, self._number)
            if seen is not None:
                self._act(c, seen, console)
        except ConsortiaError:
            return

    def _act(self, c: Coordinator, seen: Look, console: Console) -> None:
        own = seen.attempt.of(self.silo)
        if seen.attempt.close is not None:
            if self._is_gone:
                self.agent, self._is_back = self._restart(), True
                say(console, f"{self.silo} is back: its part is not in the sum, its losses count")
            return
        if not self._is_gone and seen.attempt.book is not None and own.submission is None:
            self.agent.kill()
            self._is_gone = True
            say(console, f"{self.silo} drops out: its agent is killed after it sealed its shares")
        if self._is_gone and not self._was_left_out and _others_are_done(seen, self.silo):
            self._was_left_out = True
            say(console, f"{stop_waiting(c)}, as `consortia round go-on` does")


def _seen(c: Coordinator, number: int) -> Look | None:
    feed = read_federation(c)
    newest = newest_attempt(c, feed)
    if newest is None or newest.plan.record.round != number:
        return None
    return look(c, newest.plan, feed)


def _others_are_done(seen: Look, silo: str) -> bool:
    others = [own for own in seen.attempt.cohort() if own.silo != silo]
    return seen.stage is Stage.COLLECTING and all(own.submission is not None for own in others)
