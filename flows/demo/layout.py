"""Where the demo keeps things, all below one state directory that git ignores."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from infra.durable_files import write_durably
from infra.local_ports import free_port


@dataclass(frozen=True)
class DemoPaths:
    """Paths of one demo; models and wheels outlive it, the rest starts over when it is complete."""

    state: Path

    @property
    def home(self) -> Path:
        """The federation operator's home directory."""
        return self.state / "demo"

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


@dataclass(frozen=True)
class DemoPorts:
    """Loopback ports, chosen once and kept, because they are written into configurations."""

    s3: int
    prefect: int


def demo_ports(paths: DemoPaths) -> DemoPorts:
    """The ports of this demo; free ones on its first start."""
    file = paths.stack / "ports.json"
    if file.exists():
        return DemoPorts(**json.loads(file.read_text(encoding="utf-8")))
    s3 = free_port(10_000)
    prefect = free_port()
    while prefect == s3:
        prefect = free_port()
    write_durably(file, json.dumps({"s3": s3, "prefect": prefect}).encode())
    return DemoPorts(s3, prefect)


def clear_finished(paths: DemoPaths) -> bool:
    """Remove a demo that ran to its end, so that the next starts from the base model again."""
    if not paths.complete.exists():
        return False
    shutil.rmtree(paths.home)
    return True
