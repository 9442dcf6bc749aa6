"""A bucket in memory with the promises of `infra.object_store.Bucket`, and faults on request."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from data_contracts.artifact import ArtifactRef, digest_of_bytes
from data_contracts.bucket_layout import blob_key
from data_contracts.errors import StorageError
from infra.blob_files import read_parts, receive_blob, refused_blob
from infra.object_store import MAX_LISTED_KEYS, BoundExceededError, ObjectInfo

FaultHook = Callable[[str, str], None]
"""Called with (operation, key) before each operation; raises to make the operation fail."""

_LOCK = threading.Lock()
_CHUNK_BYTES = 64 * 1024


class InMemoryBucket:
    """Two buckets over the same `objects` are one bucket as two parties see it."""

    def __init__(
        self,
        name: str,
        objects: dict[str, bytes] | None = None,
        before: FaultHook | None = None,
    ) -> None:
        self._name = name
        self.objects = {} if objects is None else objects
        self.before = before

    @property
    def name(self) -> str:
        """Name of the bucket."""
        return self._name

    def put_once(self, key: str, data: bytes) -> None:
        """See `Bucket.put_once`."""
        self._enter("put_once", key)
        self._create(key, data)

    def put_blob(self, path: Path, ref: ArtifactRef) -> None:
        """See `Bucket.put_blob`."""
        key = blob_key(ref.digest)
        self._enter("put_blob", key)
        self._create(key, b"".join(read_parts(path, ref, _CHUNK_BYTES)))

    def put(self, key: str, data: bytes) -> None:
        """See `Bucket.put`."""
        self._enter("put", key)
        with _LOCK:
            self.objects[key] = data

    def get(self, key: str, max_bytes: int) -> bytes | None:
        """See `Bucket.get`."""
        self._enter("get", key)
        data = self._read(key)
        if data is not None and len(data) > max_bytes:
            raise BoundExceededError(
                f"{self._name}/{key}",
                expected=f"at most {max_bytes} bytes",
                found=f"{len(data)} bytes",
                action="ignore the object; whoever wrote it broke the layout",
            )
        return data

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `Bucket.get_range`."""
        self._enter("get_range", key)
        data = self._read(key)
        if data is None or start + length > len(data):
            raise StorageError(
                f"{self._name}/{key}",
                expected=f"bytes {start} to {start + length}",
                found="no object" if data is None else f"{len(data)} bytes",
                action="read within the object",
            )
        return data[start : start + length]

    def download_blob(self, ref: ArtifactRef, path: Path) -> None:
        """See `Bucket.download_blob`."""
        key = blob_key(ref.digest)
        self._enter("download_blob", key)
        data = self._read(key)
        if data is None:
            raise refused_blob(ref, f"no object {self._name}/{key}", "missing")
        receive_blob(_chunks(data), ref, path)

    def list_keys(self, prefix: str, after: str = "") -> list[ObjectInfo]:
        """See `Bucket.list_keys`."""
        self._enter("list_keys", prefix)
        with _LOCK:
            found = [
                ObjectInfo(key, len(data))
                for key, data in self.objects.items()
                if key.startswith(prefix) and key > after
            ]
        if len(found) > MAX_LISTED_KEYS:
            raise BoundExceededError(
                f"{self._name}/{prefix}",
                expected=f"at most {MAX_LISTED_KEYS} objects",
                found="more",
                action="ask whoever writes this bucket to remove what does not belong here",
            )
        return found

    def _enter(self, operation: str, key: str) -> None:
        if self.before is not None:
            self.before(operation, key)

    def _create(self, key: str, data: bytes) -> None:
        with _LOCK:
            kept = self.objects.setdefault(key, data)
        if kept != data:
            raise StorageError(
                f"{self._name}/{key}",
                expected=f"to create {len(data)} bytes with SHA-256 {digest_of_bytes(data)}",
                found=f"other bytes, SHA-256 {digest_of_bytes(kept)}",
                action="objects are never overwritten; find out who else writes this bucket",
            )

    def _read(self, key: str) -> bytes | None:
        with _LOCK:
            return self.objects.get(key)


def _chunks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]
