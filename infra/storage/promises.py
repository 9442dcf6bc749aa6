"""The promises of a storage that the protocol rests on, each tried by one function.

A function returns what was seen instead of its promise, in words, or None when it held. It raises
StorageError where the storage refuses what it should do.
"""

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from threading import Barrier

from data_contracts.errors import StorageError
from data_contracts.protocol.bucket_layout import PROBE_PREFIX
from infra.storage.object_store import ABOUT_NO_PROMISE, AccessDeniedError, Bucket, Lock

RACING_CREATES = 16
RACES = 6
"""A store that only seldom lets two win must not pass by luck."""
START_SECONDS = 60.0
PROBE_BYTES = 4096
PROBE_LOCK = timedelta(minutes=15)
"""Longer than clocks differ, and shorter than anybody minds."""


def second_create(bucket: Bucket, key: str) -> str | None:
    """A second create with other bytes is refused, and the first ones stay."""
    bucket.put_once(key, b"first")
    bucket.put_once(key, b"first")
    if _creates(bucket, key, b"second"):
        return "a second create with other bytes was accepted"
    kept = bucket.get(key, PROBE_BYTES)
    return None if kept == b"first" else f"a refused create left {kept!r}"


def racing_creates(bucket: Bucket, prefix: str) -> str | None:
    """Of many creates at the same time exactly one wins, in every race."""
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


def ranged_read(bucket: Bucket, key: str) -> str | None:
    """A range is exactly those bytes."""
    data = secrets.token_bytes(PROBE_BYTES)
    bucket.put_once(key, data)
    for start, length in ((0, 1), (1000, 2000), (PROBE_BYTES - 7, 7)):
        if bucket.get_range(key, start, length) != data[start : start + length]:
            return f"other bytes than those at {start} to {start + length}"
    return None


def listing(bucket: Bucket, prefix: str) -> str | None:
    """What was written is listed, and a listing can begin after a key."""
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


def missing_key(bucket: Bucket, key: str) -> str | None:
    """A key that nobody wrote is absent."""
    return None if bucket.get(key, PROBE_BYTES) is None else "an object that nobody wrote"


def earlier_versions(inbox: Bucket, key: str) -> str | None:
    """What was written over stays under the id of its version."""
    inbox.put(key, b"first")
    first = newest_version(inbox, key)
    inbox.put(key, b"second")
    second = newest_version(inbox, key)
    if first is None or second is None or first == second:
        return f"the versions {first} and {second} of two writes"
    kept = [inbox.read(key, PROBE_BYTES, version) for version in (first, second)]
    found = [stored.data if stored else None for stored in kept]
    return None if found == [b"first", b"second"] else f"{found} under the ids of two versions"


def silo_deletion(inbox: Bucket, key: str) -> str | None:
    """A silo deletes no version."""
    version = newest_version(inbox, key) or ""
    for bypass in (False, True):
        if not _denied(partial(inbox.delete_version, key, version, bypass=bypass)):
            return f"this credential may delete versions of {inbox.name}"
    return None


def silo_lock(inbox: Bucket, key: str, lock: Lock) -> str | None:
    """A silo locks no version."""
    version = newest_version(inbox, key) or ""
    for bypass in (False, True):
        if not _fails(partial(inbox.retain, key, version, lock, bypass=bypass)):
            return f"this credential may lock versions of {inbox.name}"
    return None


def locking(inbox: Bucket, key: str, version: str, lock: Lock) -> str | None:
    """A version can be locked, and shows it."""
    with suppress(AccessDeniedError):
        # Refused too where a probe a moment ago set a longer one, and that shows as well.
        inbox.retain(key, version, lock)
    found = inbox.stat(key, version)
    if found is None or found.lock is None or not found.lock.covers(lock):
        return f"no lock on a version that was locked, but {found.lock if found else 'nothing'}"
    return None


def lock_bypass(inbox: Bucket, key: str, version: str, lock: Lock) -> str | None:
    """The coordinator neither shortens a lock nor deletes what is under one."""
    found = inbox.stat(key, version)
    until = found.lock.until if found and found.lock else lock.until
    shorter = Lock(lock.mode, until - PROBE_LOCK / 2)
    if not _denied(lambda: inbox.retain(key, version, shorter, bypass=True)):
        return f"this credential may shorten a lock in {inbox.name}"
    if not _denied(lambda: inbox.delete_version(key, version, bypass=True)):
        return f"this credential may delete a locked version of {inbox.name}"
    return None


def coordinator_write(inbox: Bucket) -> str | None:
    """The coordinator writes in no inbox."""
    key = f"{PROBE_PREFIX}{secrets.token_hex(8)}"
    allowed = not _denied(lambda: inbox.put_once(key, b"not mine"))
    return f"this credential may write in {inbox.name}" if allowed else None


def foreign_access(denied: Bucket) -> str | None:
    """A bucket of others is not listed, read or written."""
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


def newest_version(bucket: Bucket, key: str) -> str | None:
    """Id of an object's newest version; None where the bucket has none, or no such object."""
    found = bucket.stat(key)
    return None if found is None else found.version


def _creates(bucket: Bucket, key: str, data: bytes) -> bool:
    return not _fails(lambda: bucket.put_once(key, data))
