"""Changing a credential of the embedded storage without a stop: two count until one is revoked.

In order: the new one counts, whoever uses the identity is given it, and then the one before is
revoked. Every step can run again.
"""

import time
from dataclasses import replace

from data_contracts.errors import ConsortiaError
from infra.stack.identities import StorageIdentity, load_identities, new_identity
from infra.stack.local_stack import RELOAD_TIMEOUT_SECONDS, wait_for_access, write_identity
from infra.stack.seaweedfs import RunningStorage, identities_path
from infra.storage.object_store import StorageUnavailableError, UnusableCredentialError
from infra.storage.s3_bucket import S3Bucket
from infra.storage.s3_client import S3Settings


def renew_credential(storage: RunningStorage, name: str, listable_bucket: str) -> S3Settings:
    """Give an identity a new credential beside its own, and return it.

    Where two count already the newer one is returned: nobody may have been given it yet. Raises
    ConsortiaError for an identity that does not exist.
    """
    identity = _identity(storage, name)
    if identity.replaced is None:
        old = (identity.access_key, identity.secret_key)
        write_identity(storage, replace(new_identity(name, identity.policy), replaced=old))
    settings = storage.settings_for(name)
    wait_for_access(settings, listable_bucket)
    return settings


def revoke_replaced(storage: RunningStorage, name: str, listable_bucket: str) -> bool:
    """Make the credential before the newest one count no more; False where there is only one.

    Returns once the storage refuses it; ConsortiaError when it does not within 15 s.
    """
    identity = _identity(storage, name)
    if identity.replaced is None:
        return False
    access_key, secret_key = identity.replaced
    write_identity(storage, replace(identity, replaced=None))
    old = S3Settings.model_validate(
        {
            "endpoint_url": storage.endpoint_url,
            "access_key": access_key,
            "secret_key": secret_key,
        }
    )
    _wait_for_refusal(S3Bucket(old, listable_bucket))
    return True


def _identity(storage: RunningStorage, name: str) -> StorageIdentity:
    storage.settings_for(name)
    return load_identities(identities_path(storage.state_dir))[name]


def _wait_for_refusal(bucket: S3Bucket) -> None:
    deadline = time.monotonic() + RELOAD_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        try:
            bucket.list_keys("probe/")
        except UnusableCredentialError:
            return
        except StorageUnavailableError:
            pass
        time.sleep(0.1)
    raise ConsortiaError(
        "embedded object storage",
        expected=f"a revoked credential to be refused within {RELOAD_TIMEOUT_SECONDS:.0f} s",
        found="that it still counts",
        action="stop the local stack and start it again",
    )
