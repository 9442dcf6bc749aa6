"""A Prefect server that goes away under a runner is waited for, and served again when it is back.

Prefect's own runner gives up after some minutes. Its flow runs lose nothing by that: what was under
way is resumed from the signed records in storage (`flows.deployment.orphaned_runs`).
"""

from collections.abc import Callable
from itertools import count

from flows.deployment.prefect_faults import PrefectUnavailableError
from infra.clock import Clock

RETRY_SECONDS = 5
SAY_EVERY_TRIES = 12
"""A line a minute."""


def serve_through_outages(
    serve: Callable[[], None], ask: Callable[[], None], clock: Clock, say: Callable[[str], None]
) -> None:
    """Call `serve` until it returns; where it ends for want of Prefect, again once `ask` is happy.

    Both raise PrefectUnavailableError while nobody answers; what else they raise is raised.
    """
    while True:
        try:
            serve()
        except PrefectUnavailableError as error:
            _wait(error, ask, clock, say)
        else:
            return


def _wait(
    error: PrefectUnavailableError,
    ask: Callable[[], None],
    clock: Clock,
    say: Callable[[str], None],
) -> None:
    since = clock.now()
    for tries in count():
        if tries % SAY_EVERY_TRIES == 0:
            say(f"waiting for {error.problem}: found {error.found}; {error.action}")
        clock.sleep(RETRY_SECONDS)
        try:
            ask()
        except PrefectUnavailableError as again:
            error = again
        else:
            seconds = (clock.now() - since).total_seconds()
            say(f"{error.problem} answers again, after {seconds:.0f} s")
            return
