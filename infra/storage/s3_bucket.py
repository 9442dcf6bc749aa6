"""A bucket on any S3-compatible storage, with the promises of `infra.storage.object_store.Bucket`.

Creates carry `If-None-Match: *`. A 412 is success when the stored bytes are ours (a retry, or a
first answer that was lost) and an error otherwise; a 409 is another create in flight and is tried
again. Blobs are read in ranges, so a broken connection costs the current range and not the blob.
"""

import hashlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from data_contracts.errors import StorageError
from data_contracts.protocol.artifact import ArtifactRef, digest_of_bytes
from data_contracts.protocol.bucket_layout import blob_key
from infra.disk.blob_files import Opener, checked_chunks, read_whole, receive_blob, refused_blob
from infra.storage.object_store import (
    MAX_LISTED_KEYS,
    BoundExceededError,
    Lock,
    ObjectInfo,
    ObjectVersion,
    StoredObject,
    VersionGoneError,
)
from infra.storage.s3_client import (
    STREAM_FAULTS,
    S3Settings,
    connect,
    error_code,
    status_of,
    translated,
)
from infra.storage.s3_creates import BACKOFF_SECONDS, PART_BYTES, create_once, upload_parts
from infra.storage.s3_requests import sent_only_as
from infra.storage.s3_versions import (
    NO_SUCH_OBJECT,
    listed_in,
    lock_in,
    version_gone,
    version_in,
    version_parameter,
)

__all__ = ["S3Bucket", "S3Settings"]

SINGLE_PUT_MAX_BYTES = 128 * 1024 * 1024
READ_CHUNK_BYTES = 1024 * 1024
STREAM_ATTEMPTS = 4

_LOG = logging.getLogger(__name__)


class S3Bucket:
    """Implements `object_store.Bucket` with botocore; safe to share between threads."""

    def __init__(self, settings: S3Settings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._client = connect(settings, name)

    @property
    def name(self) -> str:
        """Name of the bucket."""
        return self._name

    def __repr__(self) -> str:
        return f"S3Bucket({self._settings.endpoint_url}/{self._name})"

    def put_once(self, key: str, data: bytes) -> None:
        """See `Bucket.put_once`; one request, for records and other small objects."""
        with translated(self._settings, self._name, key):
            put = self._client.put_object
            created = create_once(
                lambda: put(Bucket=self._name, Key=key, Body=data, IfNoneMatch="*")
            )
        if not created:
            self._require_digest(key, ArtifactRef(digest=digest_of_bytes(data), size=len(data)))

    def put_blob(self, path: Path, ref: ArtifactRef) -> None:
        """See `Bucket.put_blob`; in parts above SINGLE_PUT_MAX_BYTES, one part in memory."""
        key = blob_key(ref.digest)
        # What a retry finds there is read and compared, which costs less than sending it again.
        if ref.size > PART_BYTES and self.stat(key) is not None:
            self._require_digest(key, ref)
        elif ref.size <= SINGLE_PUT_MAX_BYTES:
            with sent_only_as(ref.digest):
                self.put_once(key, read_whole(path, ref))
        else:
            with translated(self._settings, self._name, key):
                place = {"Bucket": self._name, "Key": key}
                created = create_once(lambda: upload_parts(self._client, place, path, ref))
            if not created:
                self._require_digest(key, ref)

    def put(self, key: str, data: bytes) -> None:
        """See `Bucket.put`."""
        with translated(self._settings, self._name, key):
            self._client.put_object(Bucket=self._name, Key=key, Body=data)

    def get(self, key: str, max_bytes: int) -> bytes | None:
        """See `Bucket.get`."""
        found = self.read(key, max_bytes)
        return None if found is None else found.data

    def read(self, key: str, max_bytes: int, version: str | None = None) -> StoredObject | None:
        """See `Bucket.read`; the size is checked before the body is read."""
        for attempt in range(1, STREAM_ATTEMPTS + 1):
            with translated(self._settings, self._name, key):
                try:
                    return self._whole(key, max_bytes, version)
                except ClientError as error:
                    if error_code(error) in NO_SUCH_OBJECT:
                        return None
                    raise
                except STREAM_FAULTS:
                    if attempt == STREAM_ATTEMPTS:
                        raise
            time.sleep(BACKOFF_SECONDS * attempt)
        return None

    def stat(self, key: str, version: str | None = None) -> ObjectVersion | None:
        """See `Bucket.stat`."""
        with translated(self._settings, self._name, key):
            try:
                answer = self._client.head_object(
                    Bucket=self._name, Key=key, **version_parameter(version)
                )
                return ObjectVersion(version_in(answer), answer["ContentLength"], lock_in(answer))
            except ClientError as error:
                if status_of(error) != 404:
                    raise
        # HEAD has no body, so a missing bucket looks like a missing key.
        with translated(self._settings, self._name, key):
            self._client.head_bucket(Bucket=self._name)
        return None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See `Bucket.get_range`."""
        return b"".join(self.stream(key, start, length))

    def download_blob(
        self, ref: ArtifactRef, path: Path, version: str | None = None, opened: Opener | None = None
    ) -> str | None:
        """See `Bucket.download_blob`."""
        found = self._blob_version(ref.stored, version)
        receive_blob(self._blob_chunks(ref.stored, found.version), ref, path, opened)
        return found.version

    def verify_blob(self, ref: ArtifactRef, version: str | None) -> None:
        """See `Bucket.verify_blob`."""
        self._blob_version(ref, version)
        for _ in checked_chunks(self._blob_chunks(ref, version), ref):
            pass

    def retain(self, key: str, version: str, lock: Lock, *, bypass: bool = False) -> None:
        """See `Bucket.retain`."""
        retention = {"Mode": lock.mode.upper(), "RetainUntilDate": lock.until}
        more = {"BypassGovernanceRetention": True} if bypass else {}
        with translated(self._settings, self._name, key):
            try:
                self._client.put_object_retention(
                    Bucket=self._name, Key=key, VersionId=version, Retention=retention, **more
                )
            except ClientError as error:
                if error_code(error) in NO_SUCH_OBJECT:
                    raise version_gone(self._name, key, version) from None
                raise

    def delete_version(self, key: str, version: str, *, bypass: bool = False) -> None:
        """See `Bucket.delete_version`."""
        more = {"BypassGovernanceRetention": True} if bypass else {}
        with translated(self._settings, self._name, key):
            self._client.delete_object(Bucket=self._name, Key=key, VersionId=version, **more)

    def stream(
        self, key: str, start: int, length: int, version: str | None = None
    ) -> Iterator[bytes]:
        """Bytes [start, start + length) in chunks, resuming where a broken answer stopped."""
        position, end, failures = start, start + length, 0
        while position < end:
            body = self._open_range(key, position, end, version)
            try:
                for chunk in body.iter_chunks(READ_CHUNK_BYTES):
                    position, failures = position + len(chunk), 0
                    yield chunk
            except STREAM_FAULTS as error:
                failures += 1
                _LOG.info("%s/%s broke off at byte %d: %s", self._name, key, position, error)
                if failures == STREAM_ATTEMPTS:
                    with translated(self._settings, self._name, key):
                        raise
                time.sleep(BACKOFF_SECONDS * failures)

    def list_keys(self, prefix: str, after: str = "") -> list[ObjectInfo]:
        """See `Bucket.list_keys`; reads every page."""
        found: list[ObjectInfo] = []
        place = {"StartAfter": after} if after else {}
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._name, Prefix=prefix, **place
        )
        with translated(self._settings, self._name, prefix):
            for page in pages:
                found += listed_in(page)
                if len(found) > MAX_LISTED_KEYS:
                    raise BoundExceededError(
                        f"{self._name}/{prefix}",
                        expected=f"at most {MAX_LISTED_KEYS} objects",
                        found="more",
                        action="ask whoever writes this bucket to remove what does not belong here",
                    )
        return found

    def _blob_version(self, ref: ArtifactRef, version: str | None) -> ObjectVersion:
        """The version to read, which does not change while its ranges are read."""
        key = blob_key(ref.digest)
        found = self.stat(key, version)
        if found is None:
            raise refused_blob(ref, f"no object {self._name}/{key}", "missing")
        if found.size != ref.size:
            raise refused_blob(ref, f"{found.size} bytes", "size")
        return found

    def _blob_chunks(self, ref: ArtifactRef, version: str | None) -> Iterator[bytes]:
        try:
            yield from self.stream(blob_key(ref.digest), 0, ref.size, version)
        except VersionGoneError as error:
            raise refused_blob(ref, error.found, "missing") from None
        except StorageError:
            # Without versions another object can have taken its place meanwhile, a shorter one.
            if version is None:
                self._blob_version(ref, None)
            raise

    def _whole(self, key: str, max_bytes: int, version: str | None) -> StoredObject:
        answer = self._client.get_object(Bucket=self._name, Key=key, **version_parameter(version))
        if answer["ContentLength"] > max_bytes:
            answer["Body"].close()
            raise BoundExceededError(
                f"{self._name}/{key}",
                expected=f"at most {max_bytes} bytes",
                found=f"{answer['ContentLength']} bytes",
                action="ignore the object; whoever wrote it broke the layout",
            )
        return StoredObject(bytes(answer["Body"].read()), version_in(answer))

    def _open_range(self, key: str, position: int, end: int, version: str | None) -> Any:
        """Body of exactly [position, end); a storage that answers with anything else is refused."""
        with translated(self._settings, self._name, key):
            try:
                answer = self._client.get_object(
                    Bucket=self._name,
                    Key=key,
                    Range=f"bytes={position}-{end - 1}",
                    **version_parameter(version),
                )
            except ClientError as error:
                if error_code(error) not in NO_SUCH_OBJECT:
                    raise
                raise version_gone(self._name, key, version) from None
        wanted = f"bytes {position}-{end - 1}/"
        length = answer["ContentLength"]
        if answer.get("ContentRange", "").startswith(wanted) and length == end - position:
            return answer["Body"]
        answer["Body"].close()
        raise StorageError(
            f"{self._name}/{key}",
            expected=f"{wanted}... with {end - position} bytes",
            found=f"{answer.get('ContentRange', 'no Content-Range')} with {length} bytes",
            action="read within the object, from a storage that honours Range",
        )

    def _require_digest(self, key: str, ref: ArtifactRef) -> None:
        """Raise StorageError unless `key` holds exactly the bytes of `ref`."""
        stored = self.stat(key)
        found = "no object, although a create was refused"
        if stored is not None:
            found = f"{stored.size} bytes"
        if stored is not None and stored.size == ref.size:
            digest = hashlib.sha256()
            for chunk in self.stream(key, 0, ref.size, stored.version):
                digest.update(chunk)
            if digest.hexdigest() == ref.digest:
                return
            found = f"other bytes, SHA-256 {digest.hexdigest()}"
        raise StorageError(
            f"{self._name}/{key}",
            expected=f"to create {ref.size} bytes with SHA-256 {ref.digest}",
            found=found,
            action="objects are never overwritten; find out who else writes this bucket",
        )
