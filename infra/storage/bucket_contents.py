"""Everything that lies in a bucket, version by version, and its removal by a storage operator.

For counting and pruning alone: no process of a federation holds a credential that may delete. A
lock is never passed over. However much lies there, one page of the listing is in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from botocore.exceptions import ClientError

from data_contracts.errors import StorageError
from infra.storage.object_store import Lock
from infra.storage.s3_client import S3Settings, connect, error_code, translated
from infra.storage.s3_versions import lock_in

NO_SUCH_BUCKET = "NoSuchBucket"


class NoBucketError(StorageError):
    """There is no bucket of that name."""


@dataclass(frozen=True)
class StoredVersion:
    """One version of an object as a listing shows it; size in bytes, `modified` in UTC.

    `version` is None where only the newest was asked for. A marker says that an object was deleted.
    """

    key: str
    version: str | None
    size: int
    modified: datetime
    is_marker: bool = False


class BucketContents(Protocol):
    """One bucket to count and prune; all methods raise StorageError on faults."""

    @property
    def name(self) -> str: ...

    def newest(self) -> Iterator[StoredVersion]:
        """The newest version of every object; for this the right to list is enough."""

    def versions(self) -> Iterator[StoredVersion]:
        """Every version and every marker."""

    def lock(self, stored: StoredVersion) -> Lock | None:
        """The retention of a version, or None; that of a version that is gone is None too."""

    def delete(self, stored: StoredVersion) -> None:
        """Remove this very version for good; AccessDeniedError where a lock or a right forbids."""


class S3Contents:
    """Implements `BucketContents` with botocore."""

    def __init__(self, settings: S3Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self._client = connect(settings, name)

    @property
    def name(self) -> str:
        """Name of the bucket."""
        return self._name

    def newest(self) -> Iterator[StoredVersion]:
        """See `BucketContents.newest`."""
        for page in self._pages("list_objects_v2"):
            for entry in page.get("Contents", ()):
                yield _stored(entry, version=None, is_marker=False)

    def versions(self) -> Iterator[StoredVersion]:
        """See `BucketContents.versions`."""
        for page in self._pages("list_object_versions"):
            for entry in page.get("Versions", ()):
                yield _stored(entry, version=entry["VersionId"], is_marker=False)
            for entry in page.get("DeleteMarkers", ()):
                yield _stored(entry, version=entry["VersionId"], is_marker=True)

    def lock(self, stored: StoredVersion) -> Lock | None:
        """See `BucketContents.lock`."""
        if stored.is_marker:
            return None
        with translated(self._settings, self._name, stored.key):
            try:
                return lock_in(self._client.head_object(**self._named(stored)))
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    return None
                raise

    def delete(self, stored: StoredVersion) -> None:
        """See `BucketContents.delete`."""
        with translated(self._settings, self._name, stored.key):
            self._client.delete_object(**self._named(stored))

    def _named(self, stored: StoredVersion) -> dict[str, str]:
        version = {} if stored.version is None else {"VersionId": stored.version}
        return {"Bucket": self._name, "Key": stored.key, **version}

    def _pages(self, operation: str) -> Iterator[dict[str, Any]]:
        pages = iter(self._client.get_paginator(operation).paginate(Bucket=self._name))
        while True:
            with translated(self._settings, self._name, ""):
                try:
                    page = next(pages)
                except StopIteration:
                    return
                except ClientError as error:
                    if error_code(error) != NO_SUCH_BUCKET:
                        raise
                    raise _no_bucket(self._name) from None
            yield page


def _stored(entry: dict[str, Any], *, version: str | None, is_marker: bool) -> StoredVersion:
    modified = entry["LastModified"].astimezone(UTC)
    return StoredVersion(entry["Key"], version, int(entry.get("Size", 0)), modified, is_marker)


def _no_bucket(name: str) -> NoBucketError:
    return NoBucketError(
        f"bucket {name}",
        expected="a bucket",
        found="none of that name",
        action="create it, or pass over it",
    )
