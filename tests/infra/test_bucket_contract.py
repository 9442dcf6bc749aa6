"""The promises of `infra.storage.object_store.Bucket`, on memory and on a real S3 storage."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data_contracts.errors import ConsortiaError, StorageError, UntrustedInputError
from data_contracts.protocol.artifact import ArtifactRef, artifact_of_bytes, artifact_of_file
from data_contracts.protocol.bucket_layout import blob_key
from infra.stack.local_stack import RunningStorage, add_federation
from infra.storage.object_store import BoundExceededError, Bucket
from infra.storage.probe import probe_storage, require_promises
from infra.storage.s3_bucket import S3Bucket
from tests.full_disk import files_of_at_most
from tests.simulator.memory_bucket import InMemoryBucket


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.stack)], scope="module")
def bucket(request: pytest.FixtureRequest) -> Bucket:
    if request.param == "memory":
        return InMemoryBucket("contract-plans")
    storage: RunningStorage = request.getfixturevalue("object_storage")
    return S3Bucket(add_federation(storage, "contract"), "contract-plans")


@pytest.fixture
def key() -> str:
    return f"test/{os.urandom(6).hex()}"


def test_a_create_is_repeatable_but_never_overwrites(bucket: Bucket, key: str) -> None:
    bucket.put_once(key, b"first")
    bucket.put_once(key, b"first")
    with pytest.raises(StorageError, match=r"expected to create 6 bytes.*never overwritten"):
        bucket.put_once(key, b"second")
    with pytest.raises(StorageError, match="other bytes"):
        bucket.put_once(key, b"FIRST")
    assert bucket.get(key, 100) == b"first"


def test_one_of_racing_creates_wins(bucket: Bucket, key: str) -> None:
    def create(number: int) -> bool:
        try:
            bucket.put_once(key, f"contender {number}".encode())
        except StorageError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(create, range(16)))
    assert sum(won) == 1
    assert bucket.get(key, 100) == f"contender {won.index(True)}".encode()


def test_put_overwrites(bucket: Bucket, key: str) -> None:
    bucket.put(key, b"one")
    bucket.put(key, b"two")
    assert bucket.get(key, 3) == b"two"


def test_get_bounds_what_it_reads(bucket: Bucket, key: str) -> None:
    assert bucket.get(key, 10) is None
    bucket.put_once(key, b"12345")
    assert bucket.get(key, 5) == b"12345"
    with pytest.raises(BoundExceededError, match="expected at most 4 bytes; found 5 bytes"):
        bucket.get(key, 4)


def test_empty_objects(bucket: Bucket, key: str) -> None:
    bucket.put_once(key, b"")
    assert bucket.get(key, 0) == b""


def test_ranges_are_exact_or_refused(bucket: Bucket, key: str) -> None:
    data = os.urandom(10_000)
    bucket.put_once(key, data)
    assert bucket.get_range(key, 0, 10_000) == data
    assert bucket.get_range(key, 9_999, 1) == data[-1:]
    assert bucket.get_range(key, 5, 0) == b""
    with pytest.raises(StorageError):
        bucket.get_range(key, 9_990, 11)
    with pytest.raises(StorageError):
        bucket.get_range(key, 10_000, 1)
    with pytest.raises(StorageError):
        bucket.get_range(key + "-missing", 0, 1)


@pytest.mark.long
def test_listing_has_every_page(bucket: Bucket, key: str) -> None:
    prefix = f"{key}/"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: bucket.put_once(f"{prefix}{n:04d}", b"x" * (n % 3)), range(1005)))
    listed = bucket.list_keys(prefix)
    assert {info.key for info in listed} == {f"{prefix}{n:04d}" for n in range(1005)}
    assert {info.key[-4:]: info.size for info in listed}["0002"] == 2
    assert bucket.list_keys(f"{prefix}none") == []
    later = {info.key for info in bucket.list_keys(prefix, after=f"{prefix}1002")}
    assert later == {f"{prefix}1003", f"{prefix}1004"}
    assert len(bucket.list_keys(prefix, after=f"{prefix}0999x")) == 5
    assert bucket.list_keys(prefix, after=f"{prefix}~") == []


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_a_blob_travels_whole(bucket: Bucket, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(os.urandom(size))
    ref = artifact_of_file(source)
    bucket.put_blob(source, ref)
    bucket.put_blob(source, ref)
    bucket.download_blob(ref, target)
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_file_that_is_not_its_reference_is_not_uploaded(bucket: Bucket, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"bytes" + os.urandom(8))
    ref = artifact_of_bytes(os.urandom(13))
    with pytest.raises(StorageError, match="nothing was published"):
        bucket.put_blob(source, ref)
    with pytest.raises(StorageError, match="found 13 bytes"):
        bucket.put_blob(source, ref.model_copy(update={"size": 14}))
    with pytest.raises(StorageError, match="No such file"):
        bucket.put_blob(tmp_path / "missing", ref)
    assert bucket.get(blob_key(ref.digest), 100) is None


def test_a_blob_that_is_not_its_reference_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    claimed = artifact_of_bytes(os.urandom(16))
    target = tmp_path / "target"
    _assert_refused(bucket, claimed, target, "blob.missing")
    bucket.put(blob_key(claimed.digest), os.urandom(17))
    _assert_refused(bucket, claimed, target, "blob.size")
    bucket.put(blob_key(claimed.digest), os.urandom(16))
    _assert_refused(bucket, claimed, target, "blob.digest")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_partial_file(bucket: Bucket, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "source").write_bytes(data)
    ref = artifact_of_bytes(data)
    bucket.put_blob(tmp_path / "source", ref)
    kept = tmp_path / "kept"
    kept.write_bytes(b"what was there before")
    with (
        files_of_at_most(2_000_000),
        pytest.raises(ConsortiaError, match=r"writing .*3000000 free bytes.*To fix it: free space"),
    ):
        bucket.download_blob(ref, kept)
    assert kept.read_bytes() == b"what was there before"
    assert {path.name for path in tmp_path.iterdir()} == {"source", "kept"}


def test_every_promise_holds(bucket: Bucket) -> None:
    outcome = probe_storage(bucket, role="coordinator")
    require_promises(outcome)
    assert len(outcome.checks) == 5


def _assert_refused(bucket: Bucket, ref: ArtifactRef, target: Path, rule: str) -> None:
    with pytest.raises(UntrustedInputError) as caught:
        bucket.download_blob(ref, target)
    assert caught.value.rule == rule
