"""A credential that is replaced while processes use it, on disk and on a real storage."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from data_contracts.errors import ConsortiaError
from infra.disk.durable_files import write_durably
from infra.stack.credentials import renew_credential, revoke_replaced
from infra.stack.identities import silo_name
from infra.stack.local_stack import RunningStorage, add_federation, add_silo
from infra.storage.config import StorageSection, s3_settings
from infra.storage.credential_file import CredentialFile
from infra.storage.object_store import UnusableCredentialError
from infra.storage.s3_bucket import S3Bucket
from infra.storage.s3_client import S3Settings
from tests.infra.answering_s3 import always

OLD = 'access_key = "OLD1"\nsecret_key = "s"\n'
NEW = 'access_key = "NEW1"\nsecret_key = "s"\nsession_token = "t"\n'
FILE = Path("keys/storage-credentials.toml")


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def replace(path: Path, credential: S3Settings) -> None:
    secret = credential.secret_key.get_secret_value()
    text = f'access_key = "{credential.access_key}"\nsecret_key = "{secret}"\n'
    write_durably(path, text.encode())


def followed(storage: RunningStorage, home: Path, bucket: str) -> S3Bucket:
    return S3Bucket(s3_settings(StorageSection(endpoint_url=storage.endpoint_url), home), bucket)


@pytest.mark.parametrize("how", ["in place", "renamed over", "by a link"])
def test_the_next_request_is_signed_with_what_the_file_says_then(tmp_path: Path, how: str) -> None:
    path = write(tmp_path / FILE, OLD)
    if how == "by a link":
        path.rename(tmp_path / "first")
        path.symlink_to(tmp_path / "first")
    with always(200) as storage:
        bucket = S3Bucket(
            s3_settings(StorageSection(endpoint_url=storage.endpoint_url), tmp_path), "plans"
        )
        bucket.put("key", b"data")
        if how == "in place":
            write(path, NEW)
        else:
            write(tmp_path / "second", NEW)
            if how == "renamed over":
                (tmp_path / "second").rename(path)
            else:
                path.unlink()
                path.symlink_to(tmp_path / "second")
        bucket.put("key", b"data")
    before, after = (headers for _, headers in storage.requests)
    assert "Credential=OLD1/" in before["Authorization"]
    assert "X-Amz-Security-Token" not in before
    assert "Credential=NEW1/" in after["Authorization"]
    assert after["X-Amz-Security-Token"] == "t"


def half_written(path: Path) -> None:
    path.write_text(NEW[:20])


def with_a_part_missing(path: Path) -> None:
    path.write_text('access_key = "NEW1"\n')


def open_to_others(path: Path) -> None:
    path.write_text(NEW)
    path.chmod(0o644)


def empty(path: Path) -> None:
    path.write_text("")


def gone(path: Path) -> None:
    path.unlink()


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    "spoil",
    [half_written, with_a_part_missing, open_to_others, empty, gone, a_directory, no_text],
)
def test_a_file_that_cannot_be_used_changes_nothing_and_is_named_once(
    tmp_path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / FILE, OLD)
    credential = CredentialFile(path)
    spoil(path)
    for _ in range(3):
        assert credential.get_frozen_credentials().access_key == "OLD1"
    assert len(caplog.messages) == 1
    assert str(path) in caplog.text and "Until then the access key that starts with" in caplog.text
    with pytest.raises(ConsortiaError, match="storage credential"):
        CredentialFile(path)
    if path.is_dir():
        path.rmdir()
    write(path, NEW)
    assert credential.get_frozen_credentials().access_key == "NEW1"
    assert caplog.messages[-1].endswith("starts with 'NEW1' is used")
    assert "secret" not in repr(credential)


def test_a_mode_that_is_mended_is_enough(tmp_path: Path) -> None:
    path = write(tmp_path / FILE, OLD)
    credential = CredentialFile(path)
    write(path, NEW, 0o640)
    assert credential.get_frozen_credentials().access_key == "OLD1"
    path.chmod(0o600)
    assert credential.get_frozen_credentials().token == "t"


def test_a_file_that_is_touched_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / FILE, OLD)
    credential = CredentialFile(path)
    os.utime(path, (1, 1))
    assert credential.get_frozen_credentials().access_key == "OLD1"
    assert caplog.messages == []


def test_a_refused_request_is_repeated_once_and_only_after_a_change(tmp_path: Path) -> None:
    """As when the old one is withdrawn in the moment between signing and answer."""
    path = write(tmp_path / FILE, OLD)
    with always(403) as storage:
        settings = s3_settings(StorageSection(endpoint_url=storage.endpoint_url), tmp_path)
        bucket = S3Bucket(settings, "plans")
        for _ in range(2):
            with pytest.raises(ConsortiaError, match="starts with 'OLD1'"):
                bucket.put("key", b"data")
        assert len(storage.requests) == 2
        storage.on_request = lambda: write(path, NEW)
        with pytest.raises(ConsortiaError, match="starts with 'NEW1'"):
            bucket.stat("key")
    keys = [h["Authorization"].partition("Credential=")[2][:4] for _, h in storage.requests]
    assert keys == ["OLD1", "OLD1", "OLD1", "NEW1"]


@pytest.mark.stack
def test_two_credentials_count_until_the_old_one_is_revoked(
    object_storage: RunningStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    add_federation(object_storage, "rota")
    inbox, name = "rota-inbox-north", silo_name("rota", "north")
    first = add_silo(object_storage, "rota", "north")
    replace(tmp_path / FILE, first)
    bucket = followed(object_storage, tmp_path, inbox)
    bucket.put_once("before", b"1")
    second = renew_credential(object_storage, name, inbox)
    assert second.access_key != first.access_key
    assert renew_credential(object_storage, name, inbox) == second
    assert add_silo(object_storage, "rota", "north") == second
    bucket.put_once("between", b"1")
    replace(tmp_path / FILE, second)
    assert revoke_replaced(object_storage, name, inbox)
    bucket.put_once("after", b"1")
    assert {info.key for info in bucket.list_keys("")} >= {"before", "between", "after"}
    with pytest.raises(UnusableCredentialError, match="an access key that the storage knows"):
        S3Bucket(first, inbox).get("before", 10)
    assert not revoke_replaced(object_storage, name, inbox)
    assert len(caplog.messages) == 1


@pytest.mark.stack
def test_changes_amid_requests_of_many_threads_cost_none_of_them(
    object_storage: RunningStorage, tmp_path: Path
) -> None:
    """Replaced and revoked again and again, without a pause between the two."""
    add_federation(object_storage, "amid")
    inbox, name = "amid-inbox-north", silo_name("amid", "north")
    replace(tmp_path / FILE, add_silo(object_storage, "amid", "north"))
    bucket = followed(object_storage, tmp_path, inbox)
    done, faults, written = threading.Event(), [], []

    def write_on(thread: int) -> None:
        for number in range(10_000):
            if done.is_set():
                return
            try:
                bucket.put_once(f"{thread}/{number}", b"1")
                written.append(number)
            except ConsortiaError as error:
                faults.append(error)

    threads = [threading.Thread(target=write_on, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        rotations = 0
        while rotations < 5 or len(written) <= 50:
            rotations += 1
            replace(tmp_path / FILE, renew_credential(object_storage, name, inbox))
            assert revoke_replaced(object_storage, name, inbox)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert faults == [] and len(written) > 50
