"""The ports of one stack, kept between its starts: they are written into configurations."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.disk.durable_files import write_durably
from infra.loopback import LOOPBACK
from infra.stack.local_ports import free_port, is_free
from infra.stack.prefect_server import DEFAULT_PORT
from infra.stack.seaweedfs import GRPC_OFFSET, StoragePorts

PORTS_NAME = "ports.json"


@dataclass(frozen=True)
class StackPorts:
    """Loopback ports of storage and Prefect."""

    s3: int = StoragePorts.s3
    prefect: int = DEFAULT_PORT

    @classmethod
    def free(cls) -> "StackPorts":
        """Two that are free now."""
        s3 = free_port(GRPC_OFFSET)
        prefect = free_port()
        while prefect == s3:
            prefect = free_port()
        return cls(s3, prefect)

    def are_free(self) -> bool:
        """Whether a stack could be started on them now."""
        return all(map(is_free, (self.s3, self.s3 + GRPC_OFFSET, self.prefect)))

    @property
    def endpoint_url(self) -> str:
        """Address of the storage."""
        return f"http://{LOOPBACK}:{self.s3}"

    @property
    def prefect_api_url(self) -> str:
        """Address of Prefect's API."""
        return f"http://{LOOPBACK}:{self.prefect}/api"


def remembered_ports(state_dir: Path) -> StackPorts | None:
    """The ports of the last start with this `state_dir`; None when there was none."""
    try:
        kept = json.loads((state_dir / PORTS_NAME).read_text("utf-8"))
        return StackPorts(s3=int(kept["s3"]), prefect=int(kept["prefect"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def ports_for(state_dir: Path, s3: int | None, prefect: int | None) -> StackPorts:
    """Ports to start on: those asked for, else those of the last start, else the usual ones."""
    last = remembered_ports(state_dir) or StackPorts()
    return StackPorts(
        s3=last.s3 if s3 is None else s3, prefect=last.prefect if prefect is None else prefect
    )


def remember_ports(state_dir: Path, ports: StackPorts) -> None:
    """Write the ports down for the next start."""
    write_durably(state_dir / PORTS_NAME, json.dumps(asdict(ports)).encode())


def with_addresses(text: str, ports: StackPorts) -> str:
    """A configuration (TOML) whose loopback addresses of storage and Prefect have these ports."""
    for name, port in (("endpoint_url", ports.s3), ("api_url", ports.prefect)):
        address = rf"^({name} = \"http://{re.escape(LOOPBACK)}):\d+"
        text = re.sub(address, rf"\g<1>:{port}", text, flags=re.MULTILINE)
    return text
