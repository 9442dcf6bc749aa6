"""Object storage and Prefect server on one machine, with a federation's buckets and identities.

In order: storage comes up, buckets are created (inboxes with versions and Object Lock; plans
without, since create-once has to hold there), then identities are written, so a credential never
exists for a bucket that does not. Every step can run again. A silo can be added while the storage
runs.
"""

import signal
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_contracts.errors import ConsortiaError, StorageError
from data_contracts.protocol.bucket_layout import inbox_bucket, plans_bucket
from infra.processes.local_processes import refuse_second, stop_recorded
from infra.stack.attached_storage import remember_storage, running_prefect, running_storage
from infra.stack.identities import (
    ADMIN,
    StorageIdentity,
    coordinator_name,
    load_identities,
    new_identity,
    save_identities,
    silo_name,
)
from infra.stack.local_ports import require_free
from infra.stack.prefect_server import PORT_OPTION as PREFECT_PORT_OPTION
from infra.stack.prefect_server import PROCESS_NAME as PREFECT_PROCESS
from infra.stack.prefect_server import (
    RunningPrefect,
    auth_path,
    ensure_auth_string,
    start_prefect_server,
)
from infra.stack.seaweedfs import PROCESS_NAME as STORAGE_PROCESS
from infra.stack.seaweedfs import (
    RunningStorage,
    StoragePorts,
    identities_path,
    start_object_storage,
)
from infra.stack.stack_ports import StackPorts, remember_ports
from infra.storage.policies import coordinator_policy, silo_policy
from infra.storage.s3_bucket import S3Bucket
from infra.storage.s3_client import S3Settings, connect, translated
from infra.storage.s3_creates import create_bucket

__all__ = [
    "RunningPrefect",
    "RunningStorage",
    "StoragePorts",
    "add_federation",
    "add_identity",
    "add_silo",
    "auth_path",
    "ensure_auth_string",
    "start_object_storage",
    "start_prefect_server",
    "start_stack",
    "stop_recorded",
]

RELOAD_TIMEOUT_SECONDS = 15.0
STATUS_EXPIRY_DAYS = 7
NONCURRENT_DAYS = 1

_INBOX_LIFECYCLE = {
    "Rules": [
        *(
            {
                "ID": f"{prefix}-is-for-the-day",
                "Status": "Enabled",
                "Filter": {"Prefix": f"{prefix}/"},
                "Expiration": {"Days": STATUS_EXPIRY_DAYS},
                "NoncurrentVersionExpiration": {"NoncurrentDays": NONCURRENT_DAYS},
            }
            for prefix in ("status", "probe")
        ),
        {
            "ID": "unfinished-uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": STATUS_EXPIRY_DAYS},
        },
    ]
}


def start_stack(
    state_dir: Path, s3_port: int, prefect_port: int, *, keep: bool
) -> tuple[RunningStorage, RunningPrefect]:
    """Start what does not run; after a fault nothing runs that was started here.

    So a stack of which one half was killed comes up again, and one that runs whole is refused. With
    `keep` what is started outlives this process. A port of 0 chooses a free one; `stack_ports`
    remembers both. The password of Prefect is in `auth_path(state_dir)`.
    """
    state_dir = state_dir.resolve()
    storage, prefect = running_storage(state_dir), running_prefect(state_dir)
    # With a Prefect that runs, storage that runs too is a whole stack.
    if prefect is not None or _is_elsewhere(storage.ports.s3 if storage else None, s3_port):
        refuse_second(STORAGE_PROCESS, state_dir)
    if _is_elsewhere(prefect.port if prefect else None, prefect_port):
        refuse_second(PREFECT_PROCESS, state_dir)
    if prefect is None and prefect_port:
        require_free(prefect_port, "the Prefect server", PREFECT_PORT_OPTION)
    with ExitStack() as if_it_fails:
        if storage is None:
            automatic = StoragePorts.automatic()
            ports = StoragePorts(s3_port, automatic.master, automatic.volume, automatic.filer)
            storage = start_object_storage(state_dir, ports, keep=keep)
            if_it_fails.callback(storage.stop)
            remember_storage(storage)
        if prefect is None:
            auth = ensure_auth_string(auth_path(state_dir))
            prefect = start_prefect_server(state_dir, prefect_port, auth, keep=keep)
            if_it_fails.callback(prefect.stop)
        remember_ports(state_dir, StackPorts(storage.ports.s3, prefect.port))
        if_it_fails.pop_all()
    return storage, prefect


def _is_elsewhere(port: int | None, wanted: int) -> bool:
    """Whether what runs on `port`, if anything, is not where it is wanted; 0 is anywhere."""
    return port is not None and wanted not in (0, port)


def add_federation(storage: RunningStorage, federation: str) -> S3Settings:
    """Create `plans` and the coordinator's identity; return how it connects."""
    client, admin = _admin(storage)
    plans = plans_bucket(federation)
    create_bucket(client, admin, plans)
    name, policy = coordinator_name(federation), coordinator_policy(federation)
    return add_identity(storage, name, policy, plans)


def add_silo(storage: RunningStorage, federation: str, silo: str) -> S3Settings:
    """Create the silo's inbox and identity; return how the silo connects.

    Nothing in an inbox is locked by itself: the coordinator locks what decides. The storage keeps
    running.
    """
    client, admin = _admin(storage)
    inbox = inbox_bucket(federation, silo)
    create_bucket(client, admin, inbox, ObjectLockEnabledForBucket=True)
    with translated(admin, inbox):
        client.put_bucket_lifecycle_configuration(
            Bucket=inbox, LifecycleConfiguration=_INBOX_LIFECYCLE
        )
    return add_identity(storage, silo_name(federation, silo), silo_policy(federation, silo), inbox)


def add_identity(
    storage: RunningStorage, name: str, policy: str, listable_bucket: str
) -> S3Settings:
    """Create the identity, or replace the policy of an existing one, while the storage runs.

    SeaweedFS reads its identities again on SIGHUP; this returns once the identity can list
    `listable_bucket`, and raises ConsortiaError when it still cannot after 15 s.
    """
    known = load_identities(identities_path(storage.state_dir)).get(name)
    fresh = new_identity(name, policy)
    if known is not None:
        fresh = replace(known, policy=policy)
    if known != fresh:
        write_identity(storage, fresh)
    settings = storage.settings_for(name)
    wait_for_access(settings, listable_bucket)
    return settings


def write_identity(storage: RunningStorage, identity: StorageIdentity) -> None:
    """Add or replace an identity, and have the running storage read all of them again."""
    path = identities_path(storage.state_dir)
    save_identities(path, {**load_identities(path), identity.name: identity}.values())
    storage.process.signal(signal.SIGHUP)


def _admin(storage: RunningStorage) -> tuple[Any, S3Settings]:
    settings = storage.settings_for(ADMIN)
    return connect(settings, ""), settings


def wait_for_access(settings: S3Settings, bucket: str) -> None:
    """Return once who asks can list `bucket`; ConsortiaError when that is not so within 15 s."""
    deadline = time.monotonic() + RELOAD_TIMEOUT_SECONDS
    while True:
        try:
            S3Bucket(settings, bucket).list_keys("probe/")
            return
        except StorageError as error:
            if time.monotonic() > deadline:
                raise ConsortiaError(
                    "embedded object storage",
                    expected=f"a changed identity to count within {RELOAD_TIMEOUT_SECONDS:.0f} s",
                    found=error.found,
                    action="stop the local stack and start it again",
                ) from error
        time.sleep(0.1)
