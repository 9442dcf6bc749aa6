"""Checks, on the storage that will be used, the promises that the protocol rests on.

Conditional writes and locks have been broken at some time in most S3-compatible stores, and who may
do what is the storage operator's to set, so each promise is tried and not read from a data sheet.
The probe leaves a few small objects under `probe/`.
"""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from threading import Barrier

from data_contracts.errors import StorageError
from infra.storage.object_store import ABOUT_NO_PROMISE, AccessDeniedError, Bucket, Lock

RACING_CREATES = 16
RACES = 6
"""A store that only seldom lets two win must not pass by luck."""
START_SECONDS = 60.0
PROBE_BYTES = 4096
PROBE_PREFIX = "probe/"
PROBE_LOCK = timedelta(minutes=15)
"""Longer than clocks differ, and shorter than anybody minds."""


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


def probe_storage(bucket: Bucket, *, role: str) -> ProbeOutcome:
    """Try every promise of a bucket where nothing may be overwritten, which `role` may write.

    Raises StorageError where not even the first object can be written, or what answered stops.
    """
    prefix = _new_place(bucket)
    checks = [*_creating(bucket, prefix), *_reading(bucket, prefix)]
    return ProbeOutcome(bucket.name, role, tuple(checks))


def probe_inbox(
    inbox: Bucket, now: datetime, *, role: str, denied: Bucket | None = None
) -> ProbeOutcome:
    """Try, as its silo, what an inbox promises, and that the silo cannot take back what it sent.

    Without versions the coordinator keeps copies instead, and there is nothing to take back.
    `denied` is a bucket that this credential must not read, such as another silo's inbox. Raises
    StorageError where not even the first object can be written, or what answered stops.
    """
    prefix = _new_place(inbox)
    checks = _reading(inbox, prefix)
    if _version(inbox, f"{prefix}reachable") is None:
        checks += _creating(inbox, prefix)
    else:
        key, lock = f"{prefix}versions", _short_lock(now)
        checks += [
            _checked("an earlier version stays", lambda: _versions(inbox, key)),
            _checked("a silo deletes no version", lambda: _deletion(inbox, key)),
            _checked("a silo locks nothing", lambda: _lock_by_silo(inbox, key, lock)),
        ]
    if denied is not None:
        checks.append(_checked("no access to others' buckets", lambda: _denial(denied)))
    return ProbeOutcome(inbox.name, role, tuple(checks))


def probe_locks(inbox: Bucket, now: datetime, *, role: str) -> ProbeOutcome | None:
    """Try, as the coordinator, that versions in an inbox can be locked and that locks hold.

    On what the silo's own probe left there; None as long as there is nothing of it.
    """
    left = [info.key for info in inbox.list_keys(PROBE_PREFIX)]
    if not left:
        return None
    key = max(left)
    version = _version(inbox, key)
    lock = _short_lock(now)
    if version is None:
        check = PromiseCheck("versions", False, f"{inbox.name} has no versions")
        return ProbeOutcome(inbox.name, role, (check,))
    checks = (
        _checked("a version can be locked", lambda: _locked(inbox, key, version, lock)),
        _checked("the coordinator passes over no lock", lambda: _bypass(inbox, key, version, lock)),
        _checked("the coordinator writes in no inbox", lambda: _written(inbox)),
    )
    return ProbeOutcome(inbox.name, role, checks)


def require_promises(outcome: ProbeOutcome) -> None:
    """Raise StorageError naming each promise that did not hold."""
    broken = [check for check in outcome.checks if not check.held]
    if broken:
        raise StorageError(
            f"object storage, bucket {outcome.bucket}, as {outcome.role}",
            expected=", ".join(check.promise for check in broken),
            found="; ".join(check.detail for check in broken),
            action="use a storage, a version or rights of it that keep these promises (see "
            "docs/storage.md), then start again",
        )


def _new_place(bucket: Bucket) -> str:
    prefix = f"{PROBE_PREFIX}{secrets.token_hex(8)}/"
    bucket.put_once(f"{prefix}reachable", b"reachable")
    return prefix


def _short_lock(now: datetime) -> Lock:
    return Lock("governance", (now + PROBE_LOCK).replace(microsecond=0))


def _creating(bucket: Bucket, prefix: str) -> list[PromiseCheck]:
    return [
        _checked("create once", lambda: _second_create(bucket, f"{prefix}once")),
        _checked("one winner of racing creates", lambda: _race(bucket, f"{prefix}race")),
    ]


def _reading(bucket: Bucket, prefix: str) -> list[PromiseCheck]:
    return [
        _checked("exact ranged reads", lambda: _ranged_read(bucket, f"{prefix}range")),
        _checked("a written object is listed", lambda: _listing(bucket, f"{prefix}list/")),
        _checked("a missing key is absent", lambda: _missing(bucket, f"{prefix}missing")),
    ]


def _checked(promise: str, attempt: Callable[[], str | None]) -> PromiseCheck:
    """`attempt` returns what was seen instead of the promise, or None when it held."""
    try:
        seen = attempt()
    except ABOUT_NO_PROMISE:
        raise
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


def _race(bucket: Bucket, prefix: str) -> str | None:
    with ThreadPoolExecutor(RACING_CREATES) as pool:
        for number in range(RACES):
            seen = _one_race(bucket, f"{prefix}-{number}", pool)
            if seen is not None:
                return seen
    return None


def _one_race(bucket: Bucket, key: str, pool: ThreadPoolExecutor) -> str | None:
    contenders = [f"contender {number}".encode() for number in range(RACING_CREATES)]
    start = Barrier(RACING_CREATES, timeout=START_SECONDS)

    def create(data: bytes) -> bool:
        start.wait()
        return _creates(bucket, key, data)

    won = list(pool.map(create, contenders))
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


def _versions(inbox: Bucket, key: str) -> str | None:
    inbox.put(key, b"first")
    first = _version(inbox, key)
    inbox.put(key, b"second")
    second = _version(inbox, key)
    if first is None or second is None or first == second:
        return f"the versions {first} and {second} of two writes"
    kept = [inbox.read(key, PROBE_BYTES, version) for version in (first, second)]
    found = [stored.data if stored else None for stored in kept]
    return None if found == [b"first", b"second"] else f"{found} under the ids of two versions"


def _deletion(inbox: Bucket, key: str) -> str | None:
    version = _version(inbox, key) or ""
    for bypass in (False, True):
        if not _denied(partial(inbox.delete_version, key, version, bypass=bypass)):
            return f"this credential may delete versions of {inbox.name}"
    return None


def _lock_by_silo(inbox: Bucket, key: str, lock: Lock) -> str | None:
    version = _version(inbox, key) or ""
    for bypass in (False, True):
        if not _fails(partial(inbox.retain, key, version, lock, bypass=bypass)):
            return f"this credential may lock versions of {inbox.name}"
    return None


def _locked(inbox: Bucket, key: str, version: str, lock: Lock) -> str | None:
    with suppress(AccessDeniedError):
        # Refused too where a probe a moment ago set a longer one, and that shows as well.
        inbox.retain(key, version, lock)
    found = inbox.stat(key, version)
    if found is None or found.lock is None or not found.lock.covers(lock):
        return f"no lock on a version that was locked, but {found.lock if found else 'nothing'}"
    return None


def _bypass(inbox: Bucket, key: str, version: str, lock: Lock) -> str | None:
    found = inbox.stat(key, version)
    until = found.lock.until if found and found.lock else lock.until
    shorter = Lock(lock.mode, until - PROBE_LOCK / 2)
    if not _denied(lambda: inbox.retain(key, version, shorter, bypass=True)):
        return f"this credential may shorten a lock in {inbox.name}"
    if not _denied(lambda: inbox.delete_version(key, version, bypass=True)):
        return f"this credential may delete a locked version of {inbox.name}"
    return None


def _written(inbox: Bucket) -> str | None:
    key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
    allowed = not _denied(lambda: inbox.put_once(key, b"not mine"))
    return f"this credential may write in {inbox.name}" if allowed else None


def _denial(denied: Bucket) -> str | None:
    attempts: tuple[Callable[[], object], ...] = (
        lambda: denied.list_keys(""),
        lambda: denied.get("probe/denied", PROBE_BYTES),
        lambda: denied.put_once(f"{PROBE_PREFIX}{secrets.token_hex(8)}", b"denied"),
    )
    for what, attempt in zip(("listed", "read", "written"), attempts, strict=True):
        if not _denied(attempt):
            return f"{denied.name} could be {what}"
    return None


def _denied(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except AccessDeniedError:
        return True
    return False


def _fails(attempt: Callable[[], object]) -> bool:
    """For whatever reason: where a bucket has no locks at all, none can be set."""
    try:
        attempt()
    except ABOUT_NO_PROMISE:
        raise
    except StorageError:
        return True
    return False


def _version(bucket: Bucket, key: str) -> str | None:
    found = bucket.stat(key)
    return None if found is None else found.version


def _creates(bucket: Bucket, key: str, data: bytes) -> bool:
    return not _fails(lambda: bucket.put_once(key, data))
