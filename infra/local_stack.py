"""Object storage and Prefect server on one machine, with a federation's buckets and identities.

In order: storage comes up, buckets are created with versioning (the ledger with Object Lock as
well), then identities are written, so a credential never exists for a bucket that does not. Every
step can run again. A silo can be added while the storage runs.
"""

import signal
import time
from typing import Any

from botocore.exceptions import ClientError

from data_contracts.bucket_layout import inbox_bucket, ledger_bucket, plans_bucket
from data_contracts.errors import ConsortiaError, StorageError
from infra.local_processes import stop_recorded
from infra.prefect_server import RunningPrefect, ensure_auth_string, start_prefect_server
from infra.s3_bucket import S3Bucket
from infra.s3_client import S3Settings, connect, error_code, translated
from infra.seaweedfs import (
    RunningStorage,
    StoragePorts,
    identities_path,
    start_object_storage,
)
from infra.storage_identities import (
    ADMIN,
    coordinator_actions,
    coordinator_name,
    load_identities,
    new_identity,
    save_identities,
    silo_actions,
    silo_name,
)

__all__ = [
    "RunningPrefect",
    "RunningStorage",
    "StoragePorts",
    "add_federation",
    "add_identity",
    "add_silo",
    "ensure_auth_string",
    "start_object_storage",
    "start_prefect_server",
    "stop_recorded",
]

RELOAD_TIMEOUT_SECONDS = 15.0
STATUS_EXPIRY_DAYS = 7
LEDGER_RETENTION_DAYS = 30

_STATUS_LIFECYCLE = {
    "Rules": [
        {
            "ID": f"{prefix}-is-for-the-day",
            "Status": "Enabled",
            "Filter": {"Prefix": f"{prefix}/"},
            "Expiration": {"Days": STATUS_EXPIRY_DAYS},
        }
        for prefix in ("status", "probe")
    ]
}


def add_federation(
    storage: RunningStorage, federation: str, ledger_retention_days: int = LEDGER_RETENTION_DAYS
) -> S3Settings:
    """Create `plans` and `ledger` and the coordinator's identity; return how it connects.

    Each object of the ledger is locked in COMPLIANCE mode for `ledger_retention_days`: until then
    no S3 credential, not even the administrator's, deletes that version.
    """
    client, admin = _admin(storage)
    _create_bucket(client, admin, plans_bucket(federation))
    ledger = ledger_bucket(federation)
    _create_bucket(client, admin, ledger, ObjectLockEnabledForBucket=True)
    retention = {"Mode": "COMPLIANCE", "Days": ledger_retention_days}
    with translated(admin, ledger):
        client.put_object_lock_configuration(
            Bucket=ledger,
            ObjectLockConfiguration={
                "ObjectLockEnabled": "Enabled",
                "Rule": {"DefaultRetention": retention},
            },
        )
    name = coordinator_name(federation)
    known = load_identities(identities_path(storage.state_dir)).get(name)
    actions = known.actions if known else coordinator_actions(federation, ())
    return add_identity(storage, name, actions, plans_bucket(federation))


def add_silo(storage: RunningStorage, federation: str, silo: str) -> S3Settings:
    """Create the silo's inbox and identity and let the coordinator read it; return how the silo
    connects. The storage keeps running."""
    client, admin = _admin(storage)
    inbox = inbox_bucket(federation, silo)
    _create_bucket(client, admin, inbox)
    with translated(admin, inbox):
        client.put_bucket_lifecycle_configuration(
            Bucket=inbox, LifecycleConfiguration=_STATUS_LIFECYCLE
        )
    coordinator = coordinator_name(federation)
    known = load_identities(identities_path(storage.state_dir)).get(coordinator)
    actions = known.actions if known else coordinator_actions(federation, ())
    inbox_actions = (f"Read:{inbox}", f"List:{inbox}")
    add_identity(storage, coordinator, (*actions, *inbox_actions), inbox)
    return add_identity(storage, silo_name(federation, silo), silo_actions(federation, silo), inbox)


def add_identity(
    storage: RunningStorage, name: str, actions: tuple[str, ...], listable_bucket: str
) -> S3Settings:
    """Create the identity, or replace the actions of an existing one, while the storage runs.

    SeaweedFS reads its identities again on SIGHUP; this returns once the identity can list
    `listable_bucket`, and raises ConsortiaError when it still cannot after 15 s.
    """
    path = identities_path(storage.state_dir)
    identities = load_identities(path)
    known = identities.get(name)
    fresh = new_identity(name, dict.fromkeys(actions))
    if known is not None:
        fresh = type(known)(name, known.access_key, known.secret_key, fresh.actions)
    if known != fresh:
        save_identities(path, {**identities, name: fresh}.values())
        storage.process.signal(signal.SIGHUP)
    settings = storage.settings_for(name)
    _wait_for_access(settings, listable_bucket)
    return settings


def _admin(storage: RunningStorage) -> tuple[Any, S3Settings]:
    settings = storage.settings_for(ADMIN)
    return connect(settings, ""), settings


def _create_bucket(client: Any, admin: S3Settings, name: str, **options: bool) -> None:
    with translated(admin, name):
        try:
            client.create_bucket(Bucket=name, **options)
        except ClientError as error:
            if error_code(error) not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def _wait_for_access(settings: S3Settings, bucket: str) -> None:
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
