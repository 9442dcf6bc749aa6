"""Access to one bucket of S3-compatible storage, the only channel between coordinator and silos.

Guaranteed to callers: an object is created once or not at all, a repeated create of the same bytes
is success, blobs are verified against their digest and size before a caller sees them, and a
partial download never appears under its final name.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_contracts.artifact import ArtifactRef
from data_contracts.errors import StorageError

MAX_LISTED_KEYS = 100_000


class AccessDeniedError(StorageError):
    """The storage knows the caller and says no, or does not know the credential."""


class BoundExceededError(StorageError):
    """An object or a listing is larger than the reader's bound: its writer's doing, not a fault."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object as a listing shows it; size in bytes."""

    key: str
    size: int


class Bucket(Protocol):
    """What the product needs of a bucket; all methods raise StorageError on faults.

    A blob that is absent or is not what its reference says raises UntrustedInputError instead
    (reasons `blob.missing`, `blob.size`, `blob.digest`), because whoever wrote it has to answer.
    """

    @property
    def name(self) -> str: ...

    def put_once(self, key: str, data: bytes) -> None:
        """Create `key`. Success if it already holds these bytes; StorageError if others."""

    def put_blob(self, path: Path, ref: ArtifactRef) -> None:
        """Create the blob key of `ref` from a file whose bytes must match it (create-once)."""

    def put(self, key: str, data: bytes) -> None:
        """Write without condition; only for status records."""

    def get(self, key: str, max_bytes: int) -> bytes | None:
        """Whole object, or None when absent; BoundExceededError when larger than `max_bytes`."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`."""

    def download_blob(self, ref: ArtifactRef, path: Path) -> None:
        """Blob into `path` by way of a temporary file; digest and size verified, then renamed."""

    def list_keys(self, prefix: str, after: str = "") -> list[ObjectInfo]:
        """Every object below `prefix` whose key sorts after `after`, in no promised order.

        BoundExceededError where there are more than MAX_LISTED_KEYS.
        """
