"""SeaweedFS on loopback as the embedded object storage.

Guaranteed: it answers on 127.0.0.1 only, with authentication, without telemetry, and what was
stored survives SIGKILL. Beyond one machine's trust: every local user can reach the ports of its
filer, master and volume server, which know no S3 credentials.
"""

import json
import os
import shutil
import sys
import urllib.error
from dataclasses import dataclass, replace
from pathlib import Path

from data_contracts.errors import ConsortiaError
from infra.loopback import LOOPBACK, direct_opener
from infra.processes.local_processes import LocalProcess, refuse_second, start_process, wait_until
from infra.stack.identities import ADMIN, load_identities, new_identity, save_identities
from infra.stack.local_ports import free_port, require_free
from infra.storage.s3_client import S3Settings

READY_TIMEOUT_SECONDS = 60
GRPC_OFFSET = 10_000
PROCESS_NAME = "object-storage"
DATA_NAME = "object-storage"
PORT_OPTION = "--s3-port"

_SERVERS = ("s3", "master", "volume", "filer")


@dataclass(frozen=True)
class StoragePorts:
    """Ports on loopback; 0 chooses a free one. Each server also takes its port + 10,000."""

    s3: int = 8333
    master: int = 9333
    volume: int = 9340
    filer: int = 9341

    @classmethod
    def automatic(cls) -> "StoragePorts":
        """Free ports for all four."""
        return cls(0, 0, 0, 0)


@dataclass(frozen=True)
class RunningStorage:
    """The embedded storage of one `state_dir`."""

    endpoint_url: str
    state_dir: Path
    ports: StoragePorts
    process: LocalProcess

    def settings_for(self, identity: str) -> S3Settings:
        """How the named identity connects; raises ConsortiaError when there is none."""
        known = load_identities(identities_path(self.state_dir))
        if identity not in known:
            raise ConsortiaError(
                f"storage identity {identity}",
                expected=f"one of {', '.join(sorted(known))}",
                found="no such identity",
                action="add the silo or the federation to the local stack first",
            )
        return S3Settings(
            endpoint_url=self.endpoint_url,
            access_key=known[identity].access_key,
            secret_key=known[identity].secret_key,
        )

    def stop(self) -> None:
        """Stop within seconds.

        `weed server` takes 15 to 30 s to end after SIGTERM, nearly all of it waiting for itself;
        acknowledged writes are already with the kernel, so SIGKILL after the grace loses nothing.
        """
        self.process.stop()


def start_object_storage(
    state_dir: Path, ports: StoragePorts | None = None, *, keep: bool = False
) -> RunningStorage:
    """Start SeaweedFS with its data below `state_dir` and wait until S3 answers.

    Raises ConsortiaError when a port is taken, the program is missing or it does not come up. With
    `keep` it outlives this process; `local_processes.stop_recorded` stops it later.
    """
    state_dir = state_dir.resolve()
    refuse_second(PROCESS_NAME, state_dir)
    (state_dir / DATA_NAME).mkdir(parents=True, exist_ok=True, mode=0o700)
    chosen = _chosen(ports or StoragePorts())
    config = identities_path(state_dir)
    if not load_identities(config):
        # Without any identity SeaweedFS would serve everybody.
        save_identities(config, [new_identity(ADMIN, None)])
    process = start_process(
        PROCESS_NAME,
        _command(config, chosen),
        state_dir,
        env={"PATH": os.environ.get("PATH", ""), "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
        keep=keep,
        leftovers=_sockets(chosen),
    )
    endpoint_url = f"http://{LOOPBACK}:{chosen.s3}"
    wait_until(
        lambda: _answers(endpoint_url) and _has_volumes(chosen.master),
        process,
        READY_TIMEOUT_SECONDS,
    )
    return RunningStorage(endpoint_url, state_dir, chosen, process)


def identities_path(state_dir: Path) -> Path:
    """File with the identities and their secrets."""
    return state_dir / "storage-identities.json"


def _chosen(ports: StoragePorts) -> StoragePorts:
    taken: set[int] = set()
    for name in _SERVERS:
        port = getattr(ports, name)
        while not port or port in taken:
            port = free_port(GRPC_OFFSET)
        option = PORT_OPTION if name == "s3" else ""
        require_free(port, f"the object storage ({name})", option)
        also = f"the object storage ({name}, which takes {port} + {GRPC_OFFSET} too)"
        require_free(port + GRPC_OFFSET, also, option)
        taken.add(port)
        ports = replace(ports, **{name: port})
    return ports


def _command(config: Path, ports: StoragePorts) -> list[str]:
    """The command line, to be run in the state directory: an absolute path with a comma would be
    two directories to SeaweedFS."""
    return [
        _weed(),
        "-logtostderr=true",
        "server",
        f"-dir={DATA_NAME}",
        f"-ip={LOOPBACK}",
        f"-ip.bind={LOOPBACK}",
        f"-master.port={ports.master}",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=256",
        f"-volume.port={ports.volume}",
        "-volume.max=200",
        "-volume.preStopSeconds=0",
        "-filer",
        f"-filer.port={ports.filer}",
        "-s3",
        f"-s3.port={ports.s3}",
        f"-s3.config={config.name}",
        "-s3.autoCreateBucket=false",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]


def _weed() -> str:
    beside_python = Path(sys.executable).with_name("weed")
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise ConsortiaError(
            "embedded object storage",
            expected="the program weed of SeaweedFS",
            found="none beside this Python and none on PATH",
            action="install consortia[local], or configure an S3 endpoint that already runs",
        )
    return found


def _answers(endpoint_url: str) -> bool:
    """An S3 error answer is an answer: unauthenticated requests get 403."""
    try:
        with direct_opener().open(endpoint_url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 403
    except OSError:
        return False


def _has_volumes(master_port: int) -> bool:
    """Whether the master knows the volume server.

    After a crash S3 answers some 4 s earlier than that, and until then every GET is a 500.
    """
    try:
        with direct_opener().open(
            f"http://{LOOPBACK}:{master_port}/dir/status", timeout=2
        ) as answer:
            return bool(json.load(answer)["Topology"]["DataCenters"])
    except (OSError, ValueError, LookupError):
        return False


def _sockets(ports: StoragePorts) -> tuple[str, ...]:
    """The Unix sockets that SeaweedFS makes, mode 0755 and owned by its user, under /tmp."""
    grpc = [f"{kind}-grpc-{getattr(ports, kind) + GRPC_OFFSET}" for kind in _SERVERS]
    names = [f"s3-{ports.s3}", f"filer-{ports.filer}", *grpc]
    return tuple(f"/tmp/seaweedfs-{name}.sock" for name in names)  # noqa: S108
