"""A bucket in memory with the promises of `object_store.Bucket`, and faults on request.

Tests may change `objects` as somebody would who writes to the bucket: that is a new version, and
taking an object out leaves its versions, as a delete marker does. A lock never ends here.
"""

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any

from data_contracts.errors import StorageError
from data_contracts.protocol.artifact import ArtifactRef, digest_of_bytes
from data_contracts.protocol.bucket_layout import blob_key
from infra.disk.blob_files import Opener, checked_chunks, read_parts, receive_blob, refused_blob
from infra.storage.bucket_contents import StoredVersion
from infra.storage.object_store import (
    MAX_LISTED_KEYS,
    AccessDeniedError,
    BoundExceededError,
    Lock,
    ObjectInfo,
    ObjectVersion,
    StoredObject,
    VersionGoneError,
)

FaultHook = Callable[[str, str], None]
"""Called with (operation, key) before each operation; raises to make the operation fail."""

_LOCK = threading.Lock()
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class InMemoryContents:
    """Satisfies `bucket_contents.BucketContents` with the rights of a storage operator."""

    bucket: "InMemoryBucket"

    @property
    def name(self) -> str:
        """Name of the bucket."""
        return self.bucket.name

    def newest(self) -> Iterator[StoredVersion]:
        """See `BucketContents.newest`."""
        for info in self.bucket.list_keys(""):
            written = self.bucket.written.get(info.key, self.bucket.now())
            yield StoredVersion(info.key, None, info.size, written)

    def versions(self) -> Iterator[StoredVersion]:
        """See `BucketContents.versions`."""
        yield from self.bucket.stored()

    def lock(self, stored: StoredVersion) -> Lock | None:
        """See `BucketContents.lock`."""
        return self.bucket.locks.get((stored.key, stored.version or ""))

    def delete(self, stored: StoredVersion) -> None:
        """See `BucketContents.delete`."""
        lock = self.lock(stored)
        if lock is not None and lock.until > self.bucket.now():
            raise _denied(stored.key, "a version without a lock")
        self.bucket.locks.pop((stored.key, stored.version or ""), None)
        if stored.version is None:
            del self.bucket.objects[stored.key]
        else:
            self.bucket.delete_version(stored.key, stored.version)


class _Objects(dict[str, bytes]):
    """Objects by key, which are listed in the time that what is listed takes.

    A change through any of the methods below keeps `_keys` sorted; a bucket lives through thousands
    of rounds.
    """

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(objects)
        self._keys = sorted(objects)

    def below(self, prefix: str, after: str) -> list[str]:
        """Keys that begin with `prefix` and come after `after`, sorted."""
        begin = max(bisect_left(self._keys, prefix), bisect_right(self._keys, after))
        found = islice(self._keys, begin, None)
        return list(takewhile(lambda key: key.startswith(prefix), found))

    def __setitem__(self, key: str, value: bytes) -> None:
        if key not in self:
            insort(self._keys, key)
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        del self._keys[bisect_left(self._keys, key)]

    def setdefault(self, key: str, default: bytes = b"") -> bytes:
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        if key not in self:
            return super().pop(key, *default)
        value = self[key]
        del self[key]
        return value

    def update(self, *others: Any, **more: bytes) -> None:
        for key, value in dict(*others, **more).items():
            self[key] = value

    def clear(self) -> None:
        super().clear()
        self._keys.clear()


class InMemoryBucket:
    """Keeps every version of every object, unless it is not `versioned`."""

    def __init__(
        self,
        name: str,
        objects: dict[str, bytes] | None = None,
        before: FaultHook | None = None,
        *,
        versioned: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._name = name
        self.objects = objects or {}
        self.before = before
        self.versioned = versioned
        self.keeps_locks = True
        self.locks: dict[tuple[str, str], Lock] = {}
        self.now = now
        self.written: dict[str, datetime] = {}
        self._versions: dict[str, dict[str, bytes]] = {}
        self._numbers = count(1)

    @property
    def name(self) -> str:
        """Name of the bucket."""
        return self._name

    @property
    def objects(self) -> dict[str, bytes]:
        """What lies in the bucket now, by key."""
        return self._objects

    @objects.setter
    def objects(self, objects: dict[str, bytes]) -> None:
        self._objects = _Objects(objects)

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
            self.written[key] = self.now()
        self._read(key)

    def get(self, key: str, max_bytes: int) -> bytes | None:
        """See `Bucket.get`."""
        found = self.read(key, max_bytes)
        return None if found is None else found.data

    def read(self, key: str, max_bytes: int, version: str | None = None) -> StoredObject | None:
        """See `Bucket.read`."""
        self._enter("get", key)
        newest, data = self._read(key, version)
        if data is None:
            return None
        if len(data) > max_bytes:
            raise BoundExceededError(
                f"{self._name}/{key}",
                expected=f"at most {max_bytes} bytes",
                found=f"{len(data)} bytes",
                action="ignore the object; whoever wrote it broke the layout",
            )
        return StoredObject(data, newest)

    def stat(self, key: str, version: str | None = None) -> ObjectVersion | None:
        """See `Bucket.stat`."""
        self._enter("stat", key)
        newest, data = self._read(key, version)
        if data is None:
            return None
        return ObjectVersion(newest, len(data), self.locks.get((key, newest or "")))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `Bucket.get_range`."""
        self._enter("get_range", key)
        _, data = self._read(key)
        if data is None or start + length > len(data):
            raise StorageError(
                f"{self._name}/{key}",
                expected=f"bytes {start} to {start + length}",
                found="no object" if data is None else f"{len(data)} bytes",
                action="read within the object",
            )
        return data[start : start + length]

    def download_blob(
        self, ref: ArtifactRef, path: Path, version: str | None = None, opened: Opener | None = None
    ) -> str | None:
        """See `Bucket.download_blob`."""
        self._enter("download_blob", blob_key(ref.stored.digest))
        newest, data = self._blob(ref.stored, version)
        receive_blob(_chunks(data), ref, path, opened)
        return newest

    def verify_blob(self, ref: ArtifactRef, version: str | None) -> None:
        """See `Bucket.verify_blob`."""
        self._enter("verify_blob", blob_key(ref.digest))
        _, data = self._blob(ref, version)
        for _ in checked_chunks(_chunks(data), ref):
            pass

    def retain(self, key: str, version: str, lock: Lock, *, bypass: bool = False) -> None:
        """See `Bucket.retain`."""
        self._enter("bypass" if bypass else "retain", key)
        _, data = self._read(key, version)
        if data is None:
            raise VersionGoneError(key, expected=f"version {version}", found="none", action="none")
        known = self.locks.get((key, version))
        if known is not None and not lock.covers(known) and not _passed_over(known, bypass):
            raise _denied(key, "a lock that is not shortened")
        if self.keeps_locks:
            self.locks[key, version] = lock

    def delete_version(self, key: str, version: str, *, bypass: bool = False) -> None:
        """See `Bucket.delete_version`."""
        self._enter("bypass" if bypass else "delete_version", key)
        known = self.locks.get((key, version))
        if known is not None and not _passed_over(known, bypass):
            raise _denied(key, "a version without a lock")
        newest, _ = self._read(key)
        with _LOCK:
            self._versions.get(key, {}).pop(version, None)
            if newest == version:
                self.objects.pop(key, None)

    def erase(self, key: str) -> None:
        """Take an object and all its versions away, locked or not, as its disk would."""
        with _LOCK:
            self._versions.pop(key, None)
            self.objects.pop(key, None)

    def list_keys(self, prefix: str, after: str = "") -> list[ObjectInfo]:
        """See `Bucket.list_keys`."""
        self._enter("list_keys", prefix)
        with _LOCK:
            found = [
                ObjectInfo(key, len(self.objects[key]))
                for key in self._objects.below(prefix, after)
            ]
        if len(found) > MAX_LISTED_KEYS:
            raise BoundExceededError(
                f"{self._name}/{prefix}",
                expected=f"at most {MAX_LISTED_KEYS} objects",
                found="more",
                action="ask whoever writes this bucket to remove what does not belong here",
            )
        return found

    def stored(self) -> list[StoredVersion]:
        """Every version, as a listing of versions has them."""
        found = []
        for key in sorted(self.objects):
            self._read(key)
            known = self._versions.get(key, {}) if self.versioned else {None: self.objects[key]}
            written = self.written.get(key, self.now())
            found += [StoredVersion(key, v, len(data), written) for v, data in known.items()]
        return found

    def _enter(self, operation: str, key: str) -> None:
        if self.before is not None:
            self.before(operation, key)

    def _create(self, key: str, data: bytes) -> None:
        with _LOCK:
            if key not in self.objects:
                self.written[key] = self.now()
            kept = self.objects.setdefault(key, data)
        if kept != data:
            raise StorageError(
                f"{self._name}/{key}",
                expected=f"to create {len(data)} bytes with SHA-256 {digest_of_bytes(data)}",
                found=f"other bytes, SHA-256 {digest_of_bytes(kept)}",
                action="objects are never overwritten; find out who else writes this bucket",
            )

    def _read(self, key: str, version: str | None = None) -> tuple[str | None, bytes | None]:
        """A version and its bytes, the newest where none is named."""
        with _LOCK:
            data = self.objects.get(key)
            if not self.versioned:
                return None, data if version is None else None
            known = self._versions.setdefault(key, {})
            newest = next(reversed(known), None)
            if data is not None and (newest is None or known[newest] != data):
                newest = f"{next(self._numbers):032x}"
                known[newest] = data
            if version is None:
                return (newest, data) if data is not None else (None, None)
            return version, known.get(version)

    def _blob(self, ref: ArtifactRef, version: str | None) -> tuple[str | None, bytes]:
        newest, data = self._read(blob_key(ref.digest), version)
        if data is None:
            raise refused_blob(ref, f"no object {self._name}/{blob_key(ref.digest)}", "missing")
        return newest, data


def _passed_over(lock: Lock, bypass: bool) -> bool:
    return bypass and lock.mode == "governance"


def _denied(key: str, expected: str) -> AccessDeniedError:
    return AccessDeniedError(key, expected=expected, found="another", action="none")


def _chunks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]
