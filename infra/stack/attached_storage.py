"""The embedded storage and Prefect as a later command finds them: started before, left running."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from data_contracts.errors import ConsortiaError
from infra.disk.durable_files import write_durably
from infra.loopback import LOOPBACK
from infra.processes.local_processes import LocalProcess, recorded_processes
from infra.stack.prefect_server import PROCESS_NAME as PREFECT_PROCESS
from infra.stack.prefect_server import RunningPrefect, auth_path, client_env, ensure_auth_string
from infra.stack.seaweedfs import PROCESS_NAME as STORAGE_PROCESS
from infra.stack.seaweedfs import RunningStorage, StoragePorts
from infra.stack.stack_ports import remembered_ports
from infra.terminal import command_line

PORTS_NAME = "storage-ports.json"


def remember_storage(storage: RunningStorage) -> None:
    """Write down the ports, so that `attach_storage` can find this storage again."""
    write_durably(storage.state_dir / PORTS_NAME, json.dumps(asdict(storage.ports)).encode())


def attach_storage(state_dir: Path) -> RunningStorage:
    """The storage that another command started with this `state_dir`; ConsortiaError if none."""
    state_dir = state_dir.resolve()
    storage = running_storage(state_dir)
    if storage is not None:
        return storage
    raise ConsortiaError(
        f"embedded object storage in {state_dir}",
        expected="a running one",
        found="none",
        action=f"start it with `{start_command(state_dir)}`",
    )


def running_storage(state_dir: Path) -> RunningStorage | None:
    """The storage of this stack while it runs."""
    process = _running(STORAGE_PROCESS, state_dir)
    if process is None:
        return None
    ports = StoragePorts(**json.loads((state_dir / PORTS_NAME).read_text("utf-8")))
    return RunningStorage(f"http://{LOOPBACK}:{ports.s3}", state_dir, ports, process)


def running_prefect(state_dir: Path) -> RunningPrefect | None:
    """The Prefect server of this stack while it runs."""
    process, ports = _running(PREFECT_PROCESS, state_dir), remembered_ports(state_dir)
    if process is None or ports is None:
        return None
    url = ports.prefect_api_url
    env = client_env(state_dir, url, ensure_auth_string(auth_path(state_dir)))
    return RunningPrefect(url, url.removesuffix("/api"), process, env)


def _running(name: str, state_dir: Path) -> LocalProcess | None:
    recorded = recorded_processes(state_dir)
    return next((each for each in recorded if each.name == name and each.is_running()), None)


@dataclass(frozen=True)
class AttachedPrefect:
    """Address of a stack's Prefect API, and the stack's own file with user:password."""

    api_url: str
    auth: Path


def attach_prefect(state_dir: Path) -> AttachedPrefect:
    """The Prefect of the stack with this `state_dir`; ConsortiaError before its first start."""
    state_dir = state_dir.resolve()
    ports = remembered_ports(state_dir)
    if ports is None:
        raise ConsortiaError(
            f"embedded Prefect in {state_dir}",
            expected="one that was started there",
            found="none",
            action=f"start it with `{start_command(state_dir)}`",
        )
    return AttachedPrefect(ports.prefect_api_url, auth_path(state_dir))


def start_command(state_dir: Path) -> str:
    """What starts the stack of `state_dir` again, on the ports of its last start."""
    return command_line("consortia", "stack", "start", "--state", state_dir)
