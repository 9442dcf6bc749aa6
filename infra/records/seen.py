"""What a process has read of records already, so that a poll reads what is new."""

from collections.abc import Collection
from threading import Lock

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.envelope import Verified, max_document_bytes, verify
from data_contracts.protocol.records import Status
from infra.records.documents import is_named, stored_document, stored_object
from infra.storage.object_store import BoundExceededError, Bucket, ObjectInfo, StoredObject

SEEN_BYTES = 64 * 1024 * 1024
STATUSES_TRIED = 3


class SeenEnvelopes:
    """Envelopes that this process has read, so that a poll reads what is new.

    A key ends in the digest of what it holds, and only what matches is kept: nothing here ages.
    """

    def __init__(self, max_bytes: int = SEEN_BYTES) -> None:
        self._kept: dict[tuple[str, str], StoredObject] = {}
        self._lock = Lock()
        self._free = max_bytes

    def read(self, bucket: Bucket, info: ObjectInfo, max_bytes: int) -> StoredObject:
        """The document of a listed record key; raises UntrustedInputError for other bytes."""
        known = self._known(bucket, info.key)
        return known or self._keep(bucket, info.key, stored_document(bucket, info, max_bytes))

    def read_version(
        self, bucket: Bucket, key: str, version: str | None, max_bytes: int
    ) -> bytes | None:
        """The document of a record key as one version has it, the newest if that is None.

        None where there is no such version, or where its bytes are not those of the key.
        """
        known = self._known(bucket, key)
        if known is not None:
            return known.data
        try:
            found = bucket.read(key, max_bytes, version)
        except BoundExceededError:
            return None
        if found is None or not is_named(found.data, key):
            return None
        return self._keep(bucket, key, found).data

    def _known(self, bucket: Bucket, key: str) -> StoredObject | None:
        with self._lock:
            return self._kept.get((bucket.name, key))

    def _keep(self, bucket: Bucket, key: str, found: StoredObject) -> StoredObject:
        place = (bucket.name, key)
        with self._lock:
            if place not in self._kept:
                self._kept[place] = found
                self._free -= len(found.data)
            while self._free < 0:
                self._free += len(self._kept.pop(next(iter(self._kept))).data)
        return found


class SeenStatuses:
    """The newest valid status of each silo, for display only; a poll reads on from the last one."""

    def __init__(self, limit: int = STATUSES_TRIED) -> None:
        self._limit = limit
        self._newest: dict[tuple[str, str], tuple[str, Verified[Status]]] = {}

    def read(self, bucket: Bucket, prefix: str, keys: Collection[str]) -> Verified[Status] | None:
        """The newest below `prefix` among the `limit` newest that were not seen before."""
        place = (bucket.name, prefix)
        last, known = self._newest.get(place, ("", None))
        try:
            listed = bucket.list_keys(prefix, after=last)
        except BoundExceededError:
            return known
        for info in sorted(listed, key=lambda info: info.key, reverse=True)[: self._limit]:
            try:
                found = stored_object(bucket, info, max_document_bytes(Status))
                status = verify(found.data, Status, keys)
            except UntrustedInputError:
                continue
            if info.key == f"{prefix}{status.record.number:06d}.json":
                self._newest[place] = (info.key, status)
                return status
        return known
