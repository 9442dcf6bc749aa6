"""What S3 adds to the contract: faults on the way, credentials, large blobs."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_contracts.errors import StorageError
from data_contracts.protocol.artifact import artifact_of_bytes, artifact_of_file
from data_contracts.protocol.bucket_layout import blob_key
from infra.stack.local_ports import free_port
from infra.stack.local_stack import RunningStorage, add_federation, add_silo
from infra.storage.object_store import AccessDeniedError, UnusableCredentialError
from infra.storage.probe import probe_inbox, probe_locks, probe_storage, require_promises
from infra.storage.s3_bucket import SINGLE_PUT_MAX_BYTES, S3Bucket, S3Settings
from infra.storage.s3_client import connect
from tests.infra.misbehaving_s3 import running

SECRET = "the-secret-that-must-not-show"


def _settings(**changes: object) -> S3Settings:
    fields = {"endpoint_url": "https://s3.example", "access_key": "AKEXAMPLE", "secret_key": SECRET}
    return S3Settings.model_validate(fields | changes)


def test_secrets_are_in_no_repr_and_no_message() -> None:
    settings = _settings(endpoint_url=f"http://127.0.0.1:{free_port()}")
    bucket = S3Bucket(settings, "plans")
    with pytest.raises(StorageError) as unreachable:
        bucket.put_once("key", b"data")
    with pytest.raises(ValueError, match="addressing_style") as invalid:
        _settings(addressing_style="sideways")
    for text in (repr(settings), str(settings), repr(bucket), str(unreachable.value)):
        assert SECRET not in text
        assert "AKEXAMPLE" not in text
    assert SECRET not in str(invalid.value)


def test_an_unreachable_storage_says_what_to_check() -> None:
    bucket = S3Bucket(_settings(endpoint_url=f"http://127.0.0.1:{free_port()}"), "plans")
    with pytest.raises(StorageError, match=r"expected an answer.*check that it runs.*ca_bundle"):
        bucket.get("key", 10)


def test_plain_http_stays_on_this_machine() -> None:
    for endpoint in ("http://storage.example:8333", "ftp://127.0.0.1", "storage.example"):
        with pytest.raises(StorageError, match=r"https.*allow_plain_http"):
            _settings(endpoint_url=endpoint)
    assert _settings(endpoint_url="http://storage.internal:8333", allow_plain_http=True)


def test_a_missing_ca_bundle_is_a_storage_error(tmp_path: Path) -> None:
    settings = _settings(endpoint_url="https://127.0.0.1:1", ca_bundle=tmp_path / "missing.pem")
    with pytest.raises(StorageError, match=r"missing\.pem"):
        S3Bucket(settings, "plans")


def test_a_profile_of_the_user_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "does-not-exist")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://elsewhere.example")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone-else")
    client = connect(_settings(endpoint_url="https://own.example", access_key="own"), "plans")
    assert client.meta.endpoint_url == "https://own.example"


def test_a_broken_answer_is_resumed(tmp_path: Path) -> None:
    data = os.urandom(3500)
    ref = artifact_of_bytes(data)
    with running("breaks_off") as storage:
        storage.objects[f"/plans/{blob_key(ref.digest)}"] = data
        S3Bucket(storage.settings, "plans").download_blob(ref, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == data
    ranges = [request for request in storage.requests if request.startswith("bytes=")]
    assert ranges == [f"bytes={start}-3499" for start in (0, 1000, 2000, 3000)]


def test_a_conflict_is_tried_again() -> None:
    with running("conflicts_once") as storage:
        S3Bucket(storage.settings, "plans").put_once("key", b"data")
    assert storage.objects == {"/plans/key": b"data"}


def test_an_ignored_range_is_an_error() -> None:
    with running("ignores_range") as storage:
        storage.objects["/plans/key"] = b"0123456789"
        with pytest.raises(StorageError, match="honours Range"):
            S3Bucket(storage.settings, "plans").get_range("key", 2, 3)


def test_the_probe_finds_ignored_conditions() -> None:
    with running("ignores_conditions") as storage:
        outcome = probe_storage(S3Bucket(storage.settings, "plans"), role="silo")
    with pytest.raises(StorageError, match=r"bucket plans, as silo.*expected create once, one win"):
        require_promises(outcome)


@pytest.mark.stack
def test_wrong_secret_and_missing_bucket(object_storage: RunningStorage) -> None:
    settings = add_federation(object_storage, "errors")
    wrong = settings.model_copy(update={"secret_key": _settings().secret_key})
    with pytest.raises(
        UnusableCredentialError, match=r"403 SignatureDoesNotMatch.*check secret_key"
    ):
        S3Bucket(wrong, "errors-plans").get("key", 1)
    admin = S3Bucket(object_storage.settings_for("admin"), "errors-nowhere")
    with pytest.raises(StorageError, match="expected a bucket named errors-nowhere"):
        admin.get("key", 1)
    with pytest.raises(StorageError, match="expected a bucket named errors-nowhere"):
        admin.list_keys("")
    with pytest.raises(StorageError, match="expected a bucket named errors-nowhere"):
        admin.put_once("key", b"1")


@pytest.mark.stack
def test_a_silo_sees_its_own_inbox_and_the_plans(object_storage: RunningStorage) -> None:
    coordinator = add_federation(object_storage, "reach")
    one = add_silo(object_storage, "reach", "silo-1")
    ten = add_silo(object_storage, "reach", "silo-10")
    S3Bucket(coordinator, "reach-plans").put_once("key", b"plan")
    assert S3Bucket(one, "reach-plans").get("key", 10) == b"plan"
    for settings, own, other in ((one, "1", "10"), (ten, "10", "1")):
        inbox = S3Bucket(settings, f"reach-inbox-silo-{own}")
        denied = S3Bucket(settings, f"reach-inbox-silo-{other}")
        require_promises(probe_inbox(inbox, datetime.now(UTC), role="silo", denied=denied))
        for bucket in ("reach-plans", "reach-ledger"):
            with pytest.raises(AccessDeniedError):
                S3Bucket(settings, bucket).put_once("other", b"1")
        locks = probe_locks(S3Bucket(coordinator, inbox.name), datetime.now(UTC), role="it")
        assert locks is not None and locks.held, locks
        with pytest.raises(AccessDeniedError):
            S3Bucket(coordinator, inbox.name).put_once("other", b"1")


@pytest.mark.long
@pytest.mark.stack
def test_a_large_blob_goes_in_parts_and_only_once(
    object_storage: RunningStorage, tmp_path: Path
) -> None:
    bucket = S3Bucket(add_federation(object_storage, "large"), "large-plans")
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.write(os.urandom(1000))
        file.truncate(SINGLE_PUT_MAX_BYTES + 1)
    ref = artifact_of_file(source)
    bucket.put_blob(source, ref)
    bucket.put_blob(source, ref)
    bucket.download_blob(ref, tmp_path / "copy")
    assert artifact_of_file(tmp_path / "copy") == ref
    other = ref.model_copy(update={"digest": "0" * 64})
    with pytest.raises(StorageError, match="nothing was published"):
        bucket.put_blob(source, other)
    assert [info.size for info in bucket.list_keys("blobs/")] == [ref.size]
    admin = connect(object_storage.settings_for("admin"), "large-plans")
    assert "Uploads" not in admin.list_multipart_uploads(Bucket="large-plans")
