"""Ranks that stay between jobs: libraries, base model and engine are loaded once.

One group at most, started for the first job and ended when it is idle for too long, when another
agent of the machine needs its memory, when a job fails or is stopped, and with the agent, however
that ends. A group that died meanwhile costs a start and nothing else.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from infra.clock import Clock, SystemClock
from silo_agent.training.orders import Order, Orders
from silo_agent.training.processes.machine_launch import (
    Failed,
    GroupShape,
    Launcher,
    Processes,
    ThisMachine,
)

ORDERS = "silo-agent-"
"""How the names of directories with orders begin."""

log = logging.getLogger("silo-agent")


@dataclass
class _Group:
    """Processes that run, how many jobs they were given, and what ends with them."""

    shape: GroupShape
    processes: Processes
    orders: Orders
    resources: ExitStack
    given: int = 0


@dataclass(frozen=True)
class OrderedJob:
    """A job that ranks are doing; they log beside it, in `directory`."""

    processes: Processes
    orders: Orders
    number: int
    directory: Path

    @property
    def pid(self) -> int:
        """At or above all of them that run on this machine."""
        return self.processes.pid

    def exit_code(self) -> int | None:
        """0 when every rank has done the job, None before, otherwise how the processes ended."""
        # Asked first: what ends right after the job is done has not failed in it.
        ended = self.processes.exit_code()
        return 0 if self.orders.is_finished(self.number) else ended

    def failed(self, code: int) -> Failed:
        """The process to blame when `exit_code` is `code`, which is not 0."""
        return self.processes.failed(code, self.directory)


class ResidentRanks:
    """The ranks of one agent; `directory` takes the log of what starts them.

    They stay for `keep_seconds` after a job; zero ends them with it. Before ranks are started
    `make_room` is called with their shape; `kept` is entered while there are any.
    """

    def __init__(
        self,
        directory: Path,
        keep_seconds: float = 0,
        clock: Clock | None = None,
        make_room: Callable[[GroupShape], None] = lambda shape: None,
        kept: Callable[[], AbstractContextManager[None]] = nullcontext,
        launcher: Launcher | None = None,
    ) -> None:
        self._launcher = launcher or ThisMachine()
        self._directory, self._clock = directory, clock or SystemClock()
        self._keep = timedelta(seconds=keep_seconds)
        self._make_room, self._kept = make_room, kept
        self._group: _Group | None = None
        self._idle_since: datetime | None = None

    @property
    def is_last(self) -> bool:
        """Whether ranks end with their job."""
        return not self._keep

    @contextmanager
    def doing(self, order: Order, shape: GroupShape) -> Iterator[OrderedJob]:
        """The job in ranks of this shape; if the block raises, they are ended."""
        group = self._ready(shape)
        self._idle_since = None
        try:
            group.given += 1
            group.orders.give(group.given, order)
            yield OrderedJob(group.processes, group.orders, group.given, order.job.parent)
        except BaseException:
            self.end()
            raise
        if order.is_last:
            self.end()
        self._idle_since = self._clock.now()

    def is_warm(self, shape: GroupShape) -> bool:
        """Whether ranks of this shape wait for a job."""
        group = self._group
        return group is not None and group.shape == shape and group.processes.exit_code() is None

    def give_back(self, *, is_wanted: bool = False) -> None:
        """End ranks that have been idle for too long, or any idle ones that are wanted elsewhere.

        Call it often: nothing else ends them between jobs.
        """
        if self._group is None or self._idle_since is None:
            return
        idle = self._clock.now() - self._idle_since
        if is_wanted or idle >= self._keep or self._group.processes.exit_code() is not None:
            log.info("the training processes have ended, after %d idle seconds", idle.seconds)
            self.end()

    def end(self) -> None:
        """End the ranks, busy or idle; nothing of them is left when this returns."""
        group, self._group = self._group, None
        if group is not None:
            group.resources.close()

    def _ready(self, shape: GroupShape) -> _Group:
        if self._group is None or not self.is_warm(shape):
            self.end()
            self._make_room(shape)
            self._group = self._started(shape)
        return self._group

    def _started(self, shape: GroupShape) -> _Group:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in self._directory.glob("log-*.txt"):
            old.unlink()
        with ExitStack() as resources:
            resources.enter_context(self._kept())
            below = self._launcher.orders_below
            temporary = tempfile.TemporaryDirectory(prefix=ORDERS, dir=below)
            orders = Path(resources.enter_context(temporary))
            started = self._launcher.start(shape, orders, self._directory)
            processes = resources.enter_context(started)
            return _Group(shape, processes, Orders(orders), resources.pop_all())
        raise AssertionError("unreachable: no context above swallows an exception")
