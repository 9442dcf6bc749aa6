"""Starts ranks on several nodes: all are asked for together, and end together.

They end when a rank fails, when a node is lost, when the agent wants it, and, where the agent was
killed, when its signs of life stop.
"""

import logging
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from data_contracts.errors import SiloOperatorError
from silo_agent.nodes_settings import NodesSection
from silo_agent.training.nodes.group import LOOK_SECONDS, NodeGroup
from silo_agent.training.nodes.meeting_place import Beats, MeetingPlace, NodesLaunch, own_packages
from silo_agent.training.nodes.node_launcher import NodeLauncher, StartedNodes
from silo_agent.training.processes.machine_launch import GroupShape, Processes
from silo_agent.training.processes.resident_ranks import ORDERS

PLACE, CHECKED = "nodes-", "checked-nodes-"
OLD_SECONDS = 24 * 3600.0
"""No check takes as long as this: what is older was left by one that was killed."""

log = logging.getLogger("silo-agent")


@dataclass(frozen=True)
class SeveralNodes:
    """Starts ranks on nodes; satisfies `silo_agent.training.processes.machine_launch.Launcher`.

    `directory` lies on the file system that all nodes see. `launcher` makes one that logs into a
    directory; what it is made of is read anew for each start.
    """

    settings: NodesSection
    launcher: Callable[[Path], NodeLauncher]
    directory: Path

    @property
    def orders_below(self) -> Path:
        """Where every node sees them."""
        return self.directory

    @contextmanager
    def start(self, shape: GroupShape, orders: Path, logs: Path) -> Iterator[Processes]:
        """As `Launcher`."""
        self._tidy(orders)
        launch = self._launch(shape, (shape.model_dir,)).model_copy(
            update={"orders": orders, "logs": logs}
        )
        with self._nodes(launch, self.settings.start_minutes * 60) as group:
            yield group

    def check(self, shape: GroupShape, folders: tuple[Path, ...]) -> list[str]:
        """The hosts that could do their part; raises what keeps one of them from it.

        NotComeError where some have not come within `check_seconds`.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        launch = self._launch(shape, folders).model_copy(update={"is_check": True})
        with self._nodes(launch, self.settings.check_seconds) as group:
            while (code := group.exit_code()) is None:
                time.sleep(LOOK_SECONDS)
            if code:
                raise group.failed(code).error()
            return group.hosts()

    def _launch(self, shape: GroupShape, folders: tuple[Path, ...]) -> NodesLaunch:
        settings = self.settings
        return NodesLaunch(
            nodes=settings.count,
            ranks_per_node=shape.ranks // settings.count,
            threads=shape.threads_per_rank,
            device=shape.device,
            folders=folders,
            orders=self.directory,
            logs=self.directory,
            interface=settings.interface,
            port=settings.port,
            quiet_seconds=settings.quiet_seconds,
            packages=own_packages(),
        )

    def _tidy(self, orders: Path) -> None:
        """Remove what a killed agent left; nodes that still wait there end when it is gone.

        A check may run beside the agent: what is a check's stays, until it is old.
        """
        for checked in self.directory.glob(f"{CHECKED}*"):
            with suppress(OSError):
                if time.time() - checked.stat().st_mtime > OLD_SECONDS:
                    shutil.rmtree(checked, ignore_errors=True)
        for pattern in (f"{PLACE}*", f"{ORDERS}*"):
            for old in self.directory.glob(pattern):
                if old != orders:
                    shutil.rmtree(old, ignore_errors=True)

    @contextmanager
    def _nodes(self, launch: NodesLaunch, start_seconds: float) -> Iterator["NodeGroup"]:
        """Nodes that do what `launch` says; after the block all have been asked to end."""
        prefix = CHECKED if launch.is_check else PLACE
        with tempfile.TemporaryDirectory(
            prefix=prefix, dir=self.directory, ignore_cleanup_errors=True
        ) as directory:
            place = MeetingPlace(Path(directory))
            if launch.is_check:
                # The logs beside it are those of ranks that may be at work.
                launch = launch.model_copy(update={"logs": place.directory})
            place.open(launch)
            with _heartbeat(place, launch.quiet_seconds):
                started = self.launcher(launch.logs).start(place.directory)
                group = NodeGroup(place, launch, started, start_seconds)
                try:
                    yield group
                finally:
                    _end(place, group, started)


def _end(place: MeetingPlace, group: NodeGroup, started: StartedNodes) -> None:
    """Nodes are given up whatever fails before: else their job would stay in the queue."""
    try:
        # On a disk that is full or gone the launcher has to end them.
        with suppress(OSError):
            place.close()
        group.wait_for_end()
    finally:
        _give_up(started)


def _give_up(started: StartedNodes) -> None:
    """What a launcher cannot end is for a person to see to, and hides no other error."""
    try:
        started.end()
    except SiloOperatorError as error:
        log.warning("%s", error)


@contextmanager
def _heartbeat(place: MeetingPlace, quiet_seconds: float) -> Iterator[None]:
    """Signs of life of this process inside the block, whatever else it does."""
    beats, is_over = Beats(place.agent, quiet_seconds), threading.Event()
    beats.beat_if_due()

    def beat() -> None:
        while not is_over.wait(beats.seconds / 2):
            # A disk that is full or gone for a moment: the next beat may do.
            with suppress(OSError):
                beats.beat_if_due()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
