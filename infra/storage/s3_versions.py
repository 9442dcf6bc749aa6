"""How S3 names objects, versions and locks, in requests and answers."""

from datetime import UTC
from typing import Any

from infra.storage.object_store import Lock, ObjectInfo, VersionGoneError

NO_SUCH_OBJECT = ("NoSuchKey", "NoSuchVersion")
UNVERSIONED = "null"
"""How S3 names what was written while a bucket had no versions: it can be overwritten in place."""


def version_parameter(version: str | None) -> dict[str, str]:
    """The parameter of a request for a version; none for the newest."""
    return {} if version is None else {"VersionId": version}


def version_in(answer: dict[str, Any]) -> str | None:
    """The version that an answer is about; None where the bucket has no versions."""
    version = answer.get("VersionId")
    return None if version in (None, UNVERSIONED) else str(version)


def lock_in(answer: dict[str, Any]) -> Lock | None:
    """The lock that the answer to a HEAD shows."""
    mode, until = answer.get("ObjectLockMode"), answer.get("ObjectLockRetainUntilDate")
    if mode not in ("GOVERNANCE", "COMPLIANCE") or until is None:
        return None
    return Lock("governance" if mode == "GOVERNANCE" else "compliance", until.astimezone(UTC))


def listed_in(page: dict[str, Any]) -> list[ObjectInfo]:
    """The objects on one page of a listing; ValueError or KeyError for what is no whole page.

    What a proxy answers for itself has no `IsTruncated`, and must not look like an empty bucket.
    """
    if page.get("IsTruncated") is not bool(page.get("NextContinuationToken")):
        raise ValueError("a listing that does not say whether it goes on, and from where")
    return [ObjectInfo(o["Key"], int(o["Size"])) for o in page.get("Contents", ())]


def version_gone(bucket: str, key: str, version: str | None) -> VersionGoneError:
    """The error for a version, or a newest one, that is not there."""
    return VersionGoneError(
        f"{bucket}/{key}",
        expected="an object" if version is None else f"version {version}",
        found="none",
        action="whoever owns the bucket removed it; what was judged cannot be kept",
    )
