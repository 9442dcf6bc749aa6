"""Where the demo keeps things, all below one state directory that git ignores."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aggregator.settings.federation import SETTINGS_NAME
from data_contracts.errors import FederationOperatorError
from infra.disk.durable_files import disk_faults, write_durably
from infra.disk.file_lock import held_alone
from infra.stack.stack_ports import StackPorts, remember_ports, remembered_ports, with_addresses


@dataclass(frozen=True)
class DemoPaths:
    """Paths of one demo; models and wheels outlive it, the rest starts over when it is complete."""

    state: Path
    directory: str = "demo"

    @property
    def home(self) -> Path:
        """The federation operator's home directory."""
        return self.state / self.directory

    @property
    def models(self) -> Path:
        """Converted base models."""
        return self.state / "models"

    @property
    def wheels(self) -> Path:
        """Downloaded wheels."""
        return self.state / "wheels"

    @property
    def stack(self) -> Path:
        """Data, logs and process records of storage, Prefect and agents."""
        return self.home / "stack"

    @property
    def complete(self) -> Path:
        """Exists when a demo ran to its end."""
        return self.home / "complete"

    @property
    def rights_holder(self) -> Path:
        """Where the rights holder keeps its registry and keys."""
        return self.home / "rights-holder"

    def silo(self, name: str) -> Path:
        """Home directory of one silo's agent."""
        return self.home / "silos" / name


def demo_ports(paths: DemoPaths) -> StackPorts:
    """The ports of this demo: those of its last start, or others when somebody took one since."""
    last = remembered_ports(paths.stack)
    ports = last if last is not None and last.are_free() else StackPorts.free()
    remember_ports(paths.stack, ports)
    # At every start, because an earlier one may have been interrupted on its way here.
    _write_addresses(paths, ports)
    return ports


def _write_addresses(paths: DemoPaths, ports: StackPorts) -> None:
    """Write the addresses into whatever configurations the demo's set-up has made so far."""
    for file in (paths.home / SETTINGS_NAME, *paths.home.glob("silos/*/silo-agent.toml")):
        if not file.exists():
            continue
        write_durably(file, with_addresses(file.read_text(encoding="utf-8"), ports).encode())


@contextmanager
def only_demo(paths: DemoPaths) -> Iterator[None]:
    """Refuse a second demo on the same state: it would stop the processes of the first."""
    refusal = FederationOperatorError(
        f"demo in {paths.state}",
        expected="no other one that runs",
        found="one",
        action="wait for it, stop it with Ctrl-C, or choose another place with --state",
    )
    file = paths.state / "demo.lock"
    with disk_faults(file, 0):
        paths.state.mkdir(parents=True, exist_ok=True)
        file.touch()
    with held_alone(file, refusal):
        yield


def clear_finished(paths: DemoPaths) -> bool:
    """Remove a demo that ran to its end, so that the next starts from the base model again."""
    if not paths.complete.exists():
        return False
    shutil.rmtree(paths.home)
    return True
