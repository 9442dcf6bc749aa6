"""Checks, on the storage that will be used, the promises that the protocol rests on.

Conditional writes have been broken at some time in most S3-compatible stores, so each promise is
tried and not read from a data sheet. The probe leaves a few small objects under `probe/`.
"""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from data_contracts.errors import StorageError
from infra.object_store import AccessDeniedError, Bucket

RACING_CREATES = 16
PROBE_BYTES = 4096


@dataclass(frozen=True)
class PromiseCheck:
    """Whether one promise held when it was tried; `detail` says what was seen."""

    promise: str
    held: bool
    detail: str


@dataclass(frozen=True)
class ProbeOutcome:
    """All promises tried on one bucket by one role."""

    bucket: str
    role: str
    checks: tuple[PromiseCheck, ...]

    @property
    def held(self) -> bool:
        """Whether every promise held."""
        return all(check.held for check in self.checks)


def probe_storage(bucket: Bucket, *, role: str, denied: Bucket | None = None) -> ProbeOutcome:
    """Try every promise in `bucket`, which `role` may write.

    `denied` is a bucket that this credential must not read, such as another silo's inbox. Raises
    StorageError only where not even the first object can be written.
    """
    prefix = f"probe/{secrets.token_hex(8)}/"
    bucket.put_once(f"{prefix}reachable", b"reachable")
    checks = [
        _checked("create once", lambda: _second_create(bucket, f"{prefix}once")),
        _checked("one winner of racing creates", lambda: _race(bucket, f"{prefix}race")),
        _checked("exact ranged reads", lambda: _ranged_read(bucket, f"{prefix}range")),
        _checked("a written object is listed", lambda: _listing(bucket, f"{prefix}list/")),
        _checked("a missing key is absent", lambda: _missing(bucket, f"{prefix}missing")),
    ]
    if denied is not None:
        checks.append(_checked("no access to others' buckets", lambda: _denial(denied)))
    return ProbeOutcome(bucket.name, role, tuple(checks))


def require_promises(outcome: ProbeOutcome) -> None:
    """Raise StorageError naming each promise that did not hold."""
    broken = [check for check in outcome.checks if not check.held]
    if broken:
        raise StorageError(
            f"object storage, bucket {outcome.bucket}, as {outcome.role}",
            expected=", ".join(check.promise for check in broken),
            found="; ".join(check.detail for check in broken),
            action="use a storage or a version of it that keeps these promises, then start again",
        )


def _checked(promise: str, attempt: Callable[[], str | None]) -> PromiseCheck:
    """`attempt` returns what was seen instead of the promise, or None when it held."""
    try:
        seen = attempt()
    except StorageError as error:
        seen = str(error)
    return PromiseCheck(promise, seen is None, seen or "held")


def _second_create(bucket: Bucket, key: str) -> str | None:
    bucket.put_once(key, b"first")
    bucket.put_once(key, b"first")
    if _creates(bucket, key, b"second"):
        return "a second create with other bytes was accepted"
    kept = bucket.get(key, PROBE_BYTES)
    return None if kept == b"first" else f"a refused create left {kept!r}"


def _race(bucket: Bucket, key: str) -> str | None:
    contenders = [f"contender {number}".encode() for number in range(RACING_CREATES)]
    with ThreadPoolExecutor(RACING_CREATES) as pool:
        won = list(pool.map(lambda data: _creates(bucket, key, data), contenders))
    winners = [data for data, did_win in zip(contenders, won, strict=True) if did_win]
    kept = bucket.get(key, PROBE_BYTES)
    if [kept] == winners:
        return None
    return f"{len(winners)} of {RACING_CREATES} racing creates won and {kept!r} was kept"


def _ranged_read(bucket: Bucket, key: str) -> str | None:
    data = secrets.token_bytes(PROBE_BYTES)
    bucket.put_once(key, data)
    for start, length in ((0, 1), (1000, 2000), (PROBE_BYTES - 7, 7)):
        if bucket.get_range(key, start, length) != data[start : start + length]:
            return f"other bytes than those at {start} to {start + length}"
    return None


def _listing(bucket: Bucket, prefix: str) -> str | None:
    written = {f"{prefix}{name}" for name in ("a", "b", "c")}
    for key in written:
        bucket.put_once(key, b"listed")
    listed = {info.key for info in bucket.list_keys(prefix)}
    if listed != written:
        return f"{len(listed)} of {len(written)} objects in the listing"
    later = {info.key for info in bucket.list_keys(prefix, after=f"{prefix}a")}
    return (
        None if later == written - {f"{prefix}a"} else "a listing that does not begin after a key"
    )


def _missing(bucket: Bucket, key: str) -> str | None:
    return None if bucket.get(key, PROBE_BYTES) is None else "an object that nobody wrote"


def _denial(denied: Bucket) -> str | None:
    attempts: tuple[Callable[[], object], ...] = (
        lambda: denied.list_keys(""),
        lambda: denied.get("probe/denied", PROBE_BYTES),
        lambda: denied.put_once(f"probe/{secrets.token_hex(8)}", b"denied"),
    )
    for what, attempt in zip(("listed", "read", "written"), attempts, strict=True):
        try:
            attempt()
        except AccessDeniedError:
            continue
        return f"{denied.name} could be {what}"
    return None


def _creates(bucket: Bucket, key: str, data: bytes) -> bool:
    try:
        bucket.put_once(key, data)
    except StorageError:
        return False
    return True
