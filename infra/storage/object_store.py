"""Access to one bucket of S3-compatible storage, the only channel between coordinator and silos.

Guaranteed to callers: an object is created once or not at all, a repeated create of the same bytes
is success, blobs are verified against their digest and size before a caller sees them, and a
partial download never appears under its final name. In a bucket with versions, what a version id
names is always the same bytes, and under a lock it stays.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from data_contracts.errors import StorageError
from data_contracts.protocol.artifact import ArtifactRef
from infra.disk.blob_files import Opener

MAX_LISTED_KEYS = 100_000


class StorageUnavailableError(StorageError):
    """Nothing answers, or what answers says that it cannot now: it may be different in a minute."""


class UnusableCredentialError(StorageError):
    """The storage does not accept who asks, or when: key, secret, session token or clock."""


ABOUT_NO_PROMISE = (StorageUnavailableError, UnusableCredentialError)
"""What says nothing of a bucket or of the rights in it, however often it is raised."""


class AccessDeniedError(StorageError):
    """The storage knows the caller and says no."""


class RefusedRequestError(StorageError):
    """The storage understands the request and does not carry it out, for a reason of its own."""


UNREADABLE = (AccessDeniedError, RefusedRequestError)
"""What reading an object raises that its writer encrypted with a key of its own, or put into an
archive."""


class BoundExceededError(StorageError):
    """An object or a listing is larger than the reader's bound: its writer's doing, not a fault."""


class VersionGoneError(StorageError):
    """The version is not there any more, or never was."""


@dataclass(frozen=True)
class Lock:
    """Object Lock retention of one version, until an instant of whole seconds (UTC)."""

    mode: Literal["governance", "compliance"]
    until: datetime

    def covers(self, wanted: "Lock") -> bool:
        """Whether this keeps the version at least as `wanted` would."""
        return self.until >= wanted.until and self.mode in (wanted.mode, "compliance")


@dataclass(frozen=True)
class StoredObject:
    """What a GET answered; `version` is None where the bucket has no versions."""

    data: bytes
    version: str | None


@dataclass(frozen=True)
class ObjectVersion:
    """What storage says of one version: size in bytes, and the lock if it has one."""

    version: str | None
    size: int
    lock: Lock | None


@dataclass(frozen=True)
class ObjectInfo:
    """An object as a listing shows it; size in bytes."""

    key: str
    size: int


class Bucket(Protocol):
    """What the product needs of a bucket; all methods raise StorageError on faults.

    A blob that is absent or is not what its reference says raises UntrustedInputError instead
    (`blob.missing`, `blob.size`, `blob.digest`, `blob.unopened`), because whoever wrote it has to
    answer. A blob is named by the reference of what lies in storage (`ArtifactRef.stored`); only
    `download_blob` takes any, and opens what is encrypted.
    """

    @property
    def name(self) -> str: ...

    def put_once(self, key: str, data: bytes) -> None:
        """Create `key`. Success if it already holds these bytes; StorageError if others."""

    def put_blob(self, path: Path, ref: ArtifactRef) -> None:
        """Create the blob key of `ref` from a file whose bytes must match it (create-once)."""

    def put(self, key: str, data: bytes) -> None:
        """Write without condition; only for status records and the probe."""

    def get(self, key: str, max_bytes: int) -> bytes | None:
        """Whole object, or None when absent; BoundExceededError when larger than `max_bytes`."""

    def read(self, key: str, max_bytes: int, version: str | None = None) -> StoredObject | None:
        """As `get`, with the version that was read; None when that `version` is gone."""

    def stat(self, key: str, version: str | None = None) -> ObjectVersion | None:
        """Size and lock of an object's newest version or of a given one; None when absent."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`."""

    def download_blob(
        self, ref: ArtifactRef, path: Path, version: str | None = None, opened: Opener | None = None
    ) -> str | None:
        """Blob into `path` by way of a temporary file; digest and size verified, then renamed.

        `opened` opens what is encrypted, on its way. Returns the version that was read: all of it,
        of one version.
        """

    def verify_blob(self, ref: ArtifactRef, version: str | None) -> None:
        """Read a version of a blob, or its newest, to the end; returns if the bytes are `ref`'s."""

    def retain(self, key: str, version: str, lock: Lock, *, bypass: bool = False) -> None:
        """Lock a version. VersionGoneError without it; AccessDeniedError where that would shorten
        a lock it has, or this credential may not. `bypass` is for the probe, which has to be
        refused."""

    def delete_version(self, key: str, version: str, *, bypass: bool = False) -> None:
        """Only the probe asks, to be refused with AccessDeniedError."""

    def list_keys(self, prefix: str, after: str = "") -> list[ObjectInfo]:
        """Every object below `prefix` whose key sorts after `after`, in no promised order.

        BoundExceededError where there are more than MAX_LISTED_KEYS.
        """


def is_unreadable_alone(bucket: Bucket, key: str) -> bool:
    """Whether an object that was refused is so by itself: then it is its writer's doing.

    Where this credential may read, an object that is not there is absent; where it may not, that
    is refused too.
    """
    try:
        bucket.stat(f"{key}.nobody-writes-this")
    except UNREADABLE:
        return False
    return True
