"""Versions and locks as `object_store.Bucket` promises them, in memory and on a real S3."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import artifact_of_bytes, artifact_of_file
from data_contracts.protocol.bucket_layout import blob_key
from infra.stack.local_stack import RunningStorage, add_federation, add_silo
from infra.storage.object_store import (
    AccessDeniedError,
    Bucket,
    Lock,
    ObjectVersion,
    VersionGoneError,
)
from infra.storage.s3_bucket import SINGLE_PUT_MAX_BYTES, S3Bucket
from infra.storage.s3_client import connect
from tests.simulator.memory_bucket import InMemoryBucket

IN_A_DAY = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
LOCK = Lock("governance", IN_A_DAY)


@dataclass(frozen=True)
class Inbox:
    """One bucket as its silo writes it and as the coordinator reads and locks it."""

    silo: Bucket
    coordinator: Bucket


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.stack)], scope="module")
def inbox(request: pytest.FixtureRequest) -> Inbox:
    name = "versions-inbox-silo-a"
    if request.param == "memory":
        bucket = InMemoryBucket(name, versioned=True)
        return Inbox(bucket, bucket)
    storage: RunningStorage = request.getfixturevalue("object_storage")
    coordinator = add_federation(storage, "versions")
    silo = add_silo(storage, "versions", "silo-a")
    return Inbox(S3Bucket(silo, name), S3Bucket(coordinator, name))


@pytest.fixture
def key() -> str:
    return f"test/{os.urandom(6).hex()}"


def newest(bucket: Bucket, key: str) -> str:
    found = bucket.stat(key)
    assert found is not None and found.version is not None
    return found.version


def test_a_get_says_which_version_it_read(inbox: Inbox, key: str) -> None:
    inbox.silo.put(key, b"first")
    first = inbox.coordinator.read(key, 10)
    inbox.silo.put(key, b"second")
    second = inbox.coordinator.read(key, 10)
    assert first is not None and second is not None
    assert (first.data, second.data) == (b"first", b"second")
    assert first.version != second.version == newest(inbox.coordinator, key)
    for known in (first, second):
        assert inbox.coordinator.read(key, 10, known.version) == known
        stat = inbox.coordinator.stat(key, known.version)
        assert stat is not None and (stat.size, stat.lock) == (len(known.data), None)
    assert inbox.coordinator.read(key, 10, "0" * 32) is None
    assert inbox.coordinator.stat(key, "0" * 32) is None
    assert inbox.coordinator.stat(f"{key}-missing") is None


def test_a_blob_is_read_from_one_version(inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(os.urandom(100_000))
    ref = artifact_of_file(tmp_path / "blob")
    inbox.silo.put_blob(tmp_path / "blob", ref)
    version = newest(inbox.coordinator, blob_key(ref.digest))
    assert inbox.coordinator.download_blob(ref, tmp_path / "copy") == version
    inbox.silo.put(blob_key(ref.digest), os.urandom(100_000))
    with pytest.raises(UntrustedInputError, match="SHA-256"):
        inbox.coordinator.download_blob(ref, tmp_path / "copy")
    (tmp_path / "copy").unlink()
    assert inbox.coordinator.download_blob(ref, tmp_path / "copy", version) == version
    assert artifact_of_file(tmp_path / "copy") == ref
    inbox.coordinator.verify_blob(ref, version)
    other = newest(inbox.coordinator, blob_key(ref.digest))
    for wrong in (other, "0" * 32):
        with pytest.raises(UntrustedInputError):
            inbox.coordinator.verify_blob(ref, wrong)
    shorter = artifact_of_bytes(b"short")
    with pytest.raises(UntrustedInputError) as caught:
        inbox.coordinator.verify_blob(shorter, version)
    assert caught.value.rule == "blob.missing"


def test_a_lock_is_seen_and_only_grows(inbox: Inbox, key: str) -> None:
    inbox.silo.put(key, b"evidence")
    version = newest(inbox.coordinator, key)
    inbox.coordinator.retain(key, version, LOCK)
    inbox.coordinator.retain(key, version, LOCK)
    found = inbox.coordinator.stat(key, version)
    assert found is not None and found.lock == LOCK
    longer = Lock("governance", IN_A_DAY + timedelta(days=1))
    inbox.coordinator.retain(key, version, longer)
    for lock in (LOCK, Lock("governance", IN_A_DAY + timedelta(hours=1))):
        with pytest.raises(AccessDeniedError):
            inbox.coordinator.retain(key, version, lock)
    with pytest.raises(AccessDeniedError):
        inbox.coordinator.delete_version(key, version)
    inbox.silo.put(key, b"something else")
    stored = inbox.coordinator.read(key, 10, version)
    assert stored is not None and stored.data == b"evidence"
    assert inbox.coordinator.stat(key, version) == ObjectVersion(version, 8, longer)


def test_what_is_not_there_cannot_be_locked(inbox: Inbox, key: str) -> None:
    inbox.silo.put(key, b"evidence")
    with pytest.raises(VersionGoneError, match="expected version 0"):
        inbox.coordinator.retain(key, "0" * 32, LOCK)
    with pytest.raises(VersionGoneError):
        inbox.coordinator.retain(f"{key}-missing", "0" * 32, LOCK)


@pytest.mark.stack
def test_in_compliance_mode_not_even_the_administrator_erases(
    object_storage: RunningStorage,
) -> None:
    inbox = S3Bucket(add_silo(object_storage, "modes", "silo-a"), "modes-inbox-silo-a")
    coordinator = S3Bucket(add_federation(object_storage, "modes"), inbox.name)
    admin = connect(object_storage.settings_for("admin"), inbox.name)
    for mode in ("governance", "compliance"):
        inbox.put(mode, b"evidence")
        version = newest(inbox, mode)
        coordinator.retain(mode, version, Lock(mode, IN_A_DAY))
        place = {"Bucket": inbox.name, "Key": mode, "VersionId": version}
        with pytest.raises(ClientError, match="AccessDenied"):
            admin.delete_object(**place)
        if mode == "compliance":
            with pytest.raises(ClientError, match="AccessDenied"):
                admin.delete_object(**place, BypassGovernanceRetention=True)
        else:
            admin.delete_object(**place, BypassGovernanceRetention=True)


@pytest.mark.stack
def test_a_blob_in_parts_is_one_version(object_storage: RunningStorage, tmp_path: Path) -> None:
    """And one more put of it none at all, so that a silo's retry costs no space."""
    inbox = S3Bucket(add_silo(object_storage, "parts", "silo-a"), "parts-inbox-silo-a")
    with (tmp_path / "large").open("wb") as file:
        file.write(os.urandom(1000))
        file.truncate(SINGLE_PUT_MAX_BYTES + 1)
    ref = artifact_of_file(tmp_path / "large")
    inbox.put_blob(tmp_path / "large", ref)
    inbox.put_blob(tmp_path / "large", ref)
    version = newest(inbox, blob_key(ref.digest))
    coordinator = S3Bucket(add_federation(object_storage, "parts"), inbox.name)
    coordinator.retain(blob_key(ref.digest), version, LOCK)
    coordinator.verify_blob(ref, version)
    admin = connect(object_storage.settings_for("admin"), inbox.name)
    assert len(admin.list_object_versions(Bucket=inbox.name)["Versions"]) == 1


def test_when_one_lock_is_as_good_as_another() -> None:
    later = Lock("governance", IN_A_DAY + timedelta(seconds=1))
    assert LOCK.covers(LOCK) and later.covers(LOCK) and not LOCK.covers(later)
    assert Lock("compliance", IN_A_DAY).covers(LOCK)
    assert not LOCK.covers(Lock("compliance", IN_A_DAY))
