"""The embedded storage as a later command finds it: started before and left running."""

import json
from dataclasses import asdict
from pathlib import Path

from data_contracts.errors import ConsortiaError
from infra.durable_files import write_durably
from infra.local_processes import recorded_processes
from infra.loopback import LOOPBACK
from infra.seaweedfs import PROCESS_NAME, RunningStorage, StoragePorts

PORTS_NAME = "storage-ports.json"


def remember_storage(storage: RunningStorage) -> None:
    """Write down the ports, so that `attach_storage` can find this storage again."""
    write_durably(storage.state_dir / PORTS_NAME, json.dumps(asdict(storage.ports)).encode())


def attach_storage(state_dir: Path) -> RunningStorage:
    """The storage that another command started with this `state_dir`; ConsortiaError if none."""
    state_dir = state_dir.resolve()
    for process in recorded_processes(state_dir):
        if process.name == PROCESS_NAME and process.is_running():
            ports = StoragePorts(**json.loads((state_dir / PORTS_NAME).read_text("utf-8")))
            return RunningStorage(f"http://{LOOPBACK}:{ports.s3}", state_dir, ports, process)
    raise ConsortiaError(
        f"embedded object storage in {state_dir}",
        expected="a running one",
        found="none",
        action=f"start it with `consortia stack start --state {state_dir}`",
    )
