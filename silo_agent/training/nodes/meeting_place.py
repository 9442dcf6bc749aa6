"""What an agent and the nodes of one launch say to each other, in files that all of them see.

Between machines no pipe says that the other end has died. So agent and nodes each write a file anew
every few seconds; what another reads in it is compared with what it read before, by its own clock:
clocks of machines differ, and a network file system may keep times for itself.
"""

import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from infra.disk.durable_files import PRIVATE_MODE, write_durably
from silo_agent.training.engine_spec import Device

BEATS_A_SILENCE = 10
"""So many signs of life fall into the silence that counts as death."""

PACKAGES = ("consortia", "torch", "deepspeed", "transformers", "peft")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodesLaunch(_Record):
    """What each node is to start. With `is_check` a node says that it could, and ends.

    `orders` is the directory with the orders, `logs` that of the logs; `folders` are others that
    each node must see, such as base models.
    """

    nodes: Annotated[int, Field(ge=1)]
    ranks_per_node: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    device: Device
    folders: tuple[Path, ...]
    orders: Path
    logs: Path
    interface: str
    port: int
    quiet_seconds: float
    packages: dict[str, str]
    is_check: bool = False


class Ended(_Record):
    """How the ranks of a node ended: exit code of what launched them, and of each that failed."""

    host: str
    code: int
    ranks: dict[int, int] = {}


class MeetingPlace:
    """The files of one launch in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(self, launch: NodesLaunch) -> None:
        """The agent's part: say what to start."""
        write_durably(self._launch, launch.model_dump_json().encode())

    def launch(self) -> NodesLaunch:
        """What the agent wants; FileNotFoundError where this machine does not see its files."""
        return NodesLaunch.model_validate_json(self._launch.read_bytes())

    def packages(self) -> dict[str, str]:
        """The agent's versions, read so that a launch of another release tells them too.

        FileNotFoundError as `launch`.
        """
        said = json.loads(self._launch.read_bytes())
        packages = said.get("packages") if isinstance(said, dict) else None
        return packages if isinstance(packages, dict) else {}

    def close(self) -> None:
        """Ask all nodes to end."""
        (self.directory / "end").touch()

    @property
    def is_closed(self) -> bool:
        """Whether nodes are asked to end, or what they were started with is gone."""
        return (self.directory / "end").exists() or not self._launch.exists()

    @property
    def agent(self) -> Path:
        """The agent's sign of life."""
        return self.directory / "agent-alive"

    def node(self, number: int) -> Path:
        """A node's sign of life, which says its host."""
        return self.directory / f"node-{number:04d}-alive"

    def failure(self, number: int) -> Path:
        """What keeps a node from its work, where a person can act on it."""
        return self.directory / f"node-{number:04d}-failure.json"

    def say_listens(self, number: int, address: str) -> None:
        """Where a node answers calls, in a check."""
        write_durably(self._listens(number), address.encode())

    def listens(self, number: int) -> str | None:
        """Where a node answers calls, when it has said so."""
        try:
            return self._listens(number).read_text(encoding="utf-8")
        except OSError:
            return None

    def say_ended(self, number: int, ended: Ended) -> None:
        """A node's last word."""
        write_durably(self._ended(number), ended.model_dump_json().encode())

    def ended(self, number: int) -> Ended | None:
        """A node's last word, when it has come."""
        try:
            return Ended.model_validate_json(self._ended(number).read_bytes())
        except (OSError, ValidationError):
            return None

    @property
    def _launch(self) -> Path:
        return self.directory / "launch.json"

    def _listens(self, number: int) -> Path:
        return self.directory / f"node-{number:04d}-listens"

    def _ended(self, number: int) -> Path:
        return self.directory / f"node-{number:04d}-ended.json"


class Beats:
    """Signs of life that this process gives in one file, `words` with each.

    They are written in place: who opens a file on NFS sees what was written before it was closed,
    while a new file under an old name can be hidden by a cache for a minute.
    """

    def __init__(self, path: Path, quiet_seconds: float, words: str = "") -> None:
        self._path, self._words = path, words
        self.seconds = quiet_seconds / BEATS_A_SILENCE
        self._count, self._last = 0, float("-inf")

    def beat_if_due(self) -> None:
        """Write the file anew, where the last time is long enough ago."""
        if time.monotonic() - self._last >= self.seconds:
            self._last, self._count = time.monotonic(), self._count + 1
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, PRIVATE_MODE)
            try:
                # Of one length, so that no reader finds half of it.
                os.write(descriptor, f"{self._count:012d} {self._words}".encode())
            finally:
                os.close(descriptor)


class Pulse:
    """The signs of life that another process gives in one file."""

    def __init__(self, path: Path) -> None:
        self._path, self._read, self._since = path, b"", time.monotonic()

    @property
    def words(self) -> str:
        """What the other says of itself; empty before its first sign."""
        return self._read.decode().partition(" ")[2]

    def seconds_quiet(self) -> float:
        """Since when nothing new was read, by the clock of this process."""
        try:
            read = self._path.read_bytes()
        except OSError:
            read = b""
        if read and read != self._read:
            self._read, self._since = read, time.monotonic()
        return time.monotonic() - self._since


def own_packages() -> dict[str, str]:
    """Versions that must be the same on all nodes."""
    return {name: version(name) for name in PACKAGES}


def node_log(logs: Path, number: int) -> Path:
    """What the launcher of a node's ranks says."""
    return logs / f"log-node-{number}.txt"
