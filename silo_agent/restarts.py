"""A process of the agent's own that died, and how often it is started again.

A kill may be chance: another program took the memory for a minute. So what died is started again,
training from its last checkpoint, as often as `agent.max_restarts` says; what dies every time is
the caller's to answer for, with a signed refusal.
"""

import logging
import time
from collections.abc import Callable
from typing import ClassVar, TypeVar

from data_contracts.errors import SiloOperatorError

ResultT = TypeVar("ResultT")

log = logging.getLogger("silo-agent")


class ProcessDiedError(SiloOperatorError):
    """A process ended before it was done and reported no reason: killed, out of memory, crashed.

    The round suffers, not the agent: the next attempt is taken part in. The next start waits
    `wait_seconds`.
    """

    wait_seconds: ClassVar[float] = 0.0


class CheckDiedError(ProcessDiedError):
    """It was the one that looks at the data."""


def with_restarts(run: Callable[[], ResultT], max_restarts: int) -> ResultT:
    """What `run` returns, called again at most `max_restarts` times while its process dies.

    Raises the last ProcessDiedError, and any other error at once.
    """
    for left in range(max_restarts, 0, -1):
        try:
            return run()
        except ProcessDiedError as error:
            log.warning("for the silo operator only: %s", error)
            log.warning("it is started again, at most %d more times", left)
            time.sleep(error.wait_seconds)
    return run()
