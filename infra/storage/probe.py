"""Checks, on the storage that will be used, the promises that the protocol rests on.

Conditional writes and locks have been broken at some time in most S3-compatible stores, and who may
do what is the storage operator's to set, so each promise is tried and not read from a data sheet.
The probe leaves a few small objects under `probe/`.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import ParamSpec

from data_contracts.errors import StorageError
from data_contracts.protocol.bucket_layout import PROBE_PREFIX
from infra.storage import promises
from infra.storage.object_store import ABOUT_NO_PROMISE, Bucket, Lock

Place = ParamSpec("Place")
"""Where a promise is tried."""


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
    if promises.newest_version(inbox, f"{prefix}reachable") is None:
        checks += _creating(inbox, prefix)
    else:
        key, lock = f"{prefix}versions", _short_lock(now)
        checks += [
            _checked("an earlier version stays", promises.earlier_versions, inbox, key),
            _checked("a silo deletes no version", promises.silo_deletion, inbox, key),
            _checked("a silo locks nothing", promises.silo_lock, inbox, key, lock),
        ]
    if denied is not None:
        checks.append(_checked("no access to others' buckets", promises.foreign_access, denied))
    return ProbeOutcome(inbox.name, role, tuple(checks))


def probe_locks(inbox: Bucket, now: datetime, *, role: str) -> ProbeOutcome | None:
    """Try, as the coordinator, that versions in an inbox can be locked and that locks hold.

    On what the silo's own probe left there; None as long as there is nothing of it.
    """
    left = [info.key for info in inbox.list_keys(PROBE_PREFIX)]
    if not left:
        return None
    key = max(left)
    version = promises.newest_version(inbox, key)
    lock = _short_lock(now)
    if version is None:
        check = PromiseCheck("versions", False, f"{inbox.name} has no versions")
        return ProbeOutcome(inbox.name, role, (check,))
    checks = (
        _checked("a version can be locked", promises.locking, inbox, key, version, lock),
        _checked(
            "the coordinator passes over no lock", promises.lock_bypass, inbox, key, version, lock
        ),
        _checked("the coordinator writes in no inbox", promises.coordinator_write, inbox),
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
    return Lock("governance", (now + promises.PROBE_LOCK).replace(microsecond=0))


def _creating(bucket: Bucket, prefix: str) -> list[PromiseCheck]:
    return [
        _checked("create once", promises.second_create, bucket, f"{prefix}once"),
        _checked("one winner of racing creates", promises.racing_creates, bucket, f"{prefix}race"),
    ]


def _reading(bucket: Bucket, prefix: str) -> list[PromiseCheck]:
    return [
        _checked("exact ranged reads", promises.ranged_read, bucket, f"{prefix}range"),
        _checked("a written object is listed", promises.listing, bucket, f"{prefix}list/"),
        _checked("a missing key is absent", promises.missing_key, bucket, f"{prefix}missing"),
    ]


def _checked(
    promise: str, attempt: Callable[Place, str | None], *args: Place.args, **kwargs: Place.kwargs
) -> PromiseCheck:
    """`attempt` returns what was seen instead of the promise, or None when it held."""
    try:
        seen = attempt(*args, **kwargs)
    except ABOUT_NO_PROMISE:
        raise
    except StorageError as error:
        seen = str(error)
    return PromiseCheck(promise, seen is None, seen or "held")
