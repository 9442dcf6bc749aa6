"""Each way in which a storage fails has one message, which names the cause and who acts."""

import hashlib
import random
import socket
import ssl
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from data_contracts.errors import StorageError
from infra.stack.local_ports import free_port
from infra.storage.object_store import (
    AccessDeniedError,
    BoundExceededError,
    Lock,
    RefusedRequestError,
    StorageUnavailableError,
    UnusableCredentialError,
)
from infra.storage.probe import probe_inbox, probe_storage
from infra.storage.s3_bucket import S3Bucket, S3Settings
from tests.infra.answering_s3 import always, error_body

LISTING = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>plans</Name>\
<Prefix>rounds/</Prefix><KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys>\
<IsTruncated>false</IsTruncated><EncodingType>url</EncodingType><Contents>\
<Key>rounds/0001/plan.json</Key><LastModified>2026-03-02T09:00:00.000Z</LastModified>\
<ETag>&quot;5d41402abc4b2a76b9719d911017c592&quot;</ETag><Size>1234</Size></Contents><Contents>\
<Key>rounds/0002/plan.json</Key><LastModified>2026-03-03T09:00:00.000Z</LastModified>\
<ETag>&quot;7d793037a0760186574b0282f2f435e7&quot;</ETag><Size>99</Size></Contents>\
</ListBucketResult>"""
NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (403, "InvalidAccessKeyId", UnusableCredentialError, "check access_key"),
        (403, "SignatureDoesNotMatch", UnusableCredentialError, "check secret_key"),
        (400, "ExpiredToken", UnusableCredentialError, "renew session_token"),
        (400, "ExpiredTokenException", UnusableCredentialError, "renew session_token"),
        (400, "InvalidToken", UnusableCredentialError, "all from one answer"),
        (403, "InvalidClientTokenId", UnusableCredentialError, "all from one answer"),
        (403, "RequestTimeTooSkewed", UnusableCredentialError, "set this machine's clock by NTP"),
        (403, "AccessDenied", AccessDeniedError, "consortia storage policy"),
        (401, "Unauthorized", AccessDeniedError, "consortia storage policy"),
        (404, "NoSuchBucket", StorageError, "expected a bucket named plans"),
        (301, "PermanentRedirect", StorageError, "set region"),
        (400, "EntityTooLarge", RefusedRequestError, "log of the object storage"),
        (503, "SlowDown", StorageUnavailableError, "503 SlowDown"),
    ],
)
def test_an_error_answer_names_its_cause(
    status: int, code: str, kind: type[StorageError], said: str
) -> None:
    with always(status, error_body(code)) as storage:
        bucket = S3Bucket(storage.settings, "plans")
        with pytest.raises(StorageError) as caught:
            bucket.put_once("key", b"data")
    assert type(caught.value) is kind
    assert code in str(caught.value) or "no such bucket" in str(caught.value)
    assert said in str(caught.value)
    assert "check access key and secret" not in str(caught.value)


@pytest.mark.parametrize(("hours", "side"), [(3, "behind"), (-3, "ahead of")])
def test_a_clock_that_is_off_is_named_with_how_far(hours: int, side: str) -> None:
    """Also where the answer, as to a HEAD, has no code: its Date says it."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=hours), usegmt=True)
    said = rf"clock is 1(79|80) min {side} it"
    with (
        always(403, headers={"Date": date}) as storage,
        pytest.raises(UnusableCredentialError, match=said),
    ):
        S3Bucket(storage.settings, "plans").stat("key")
    with always(403) as storage, pytest.raises(AccessDeniedError):
        S3Bucket(storage.settings, "plans").stat("key")


def test_another_region_is_named() -> None:
    body = error_body("AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>")
    with always(400, body) as storage, pytest.raises(StorageError, match="region = 'eu-central-1'"):
        S3Bucket(storage.settings, "plans").get("key", 10)


@pytest.mark.long
def test_no_flipped_bit_of_a_listing_is_more_than_a_storage_error() -> None:
    """Some make botocore ask again, which it says as if the storage had answered 500."""
    draw, outcomes = random.Random(0), set()
    with always(200, LISTING) as storage:
        bucket = S3Bucket(storage.settings, "plans")
        assert [info.size for info in bucket.list_keys("rounds/")] == [1234, 99]
        for place in draw.sample(range(LISTING.index(b"<Contents>"), len(LISTING)), 60):
            flipped = bytearray(LISTING)
            flipped[place] ^= 1 << draw.randrange(8)
            storage.body = bytes(flipped)
            try:
                bucket.list_keys("rounds/")
                outcomes.add("listed")
            except StorageError as error:
                assert not isinstance(error, BoundExceededError)
                outcomes.add(type(error).__name__)
    assert {"listed", "StorageError"} <= outcomes


@pytest.mark.parametrize(
    "damage",
    [
        (b"<Size>1234<", b"<Size>12x4<"),
        (b"<Size>99</Size>", b""),
        (b"<Key>rounds/0002/plan.json</Key>", b"<Kez>rounds/0002/plan.json</Kez>"),
        (b"2026-03-02T09", b"2026-03-92T09"),
        (b"<IsTruncated>false</IsTruncated>", b""),
        (b"<IsTruncated>false<", b"<IsTruncated>true<"),
    ],
)
def test_a_listing_with_a_hole_is_not_read_as_less(damage: tuple[bytes, bytes]) -> None:
    with (
        always(200, LISTING.replace(*damage)) as storage,
        pytest.raises(StorageError, match="cannot be read"),
    ):
        S3Bucket(storage.settings, "plans").list_keys("rounds/")


@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"{}", b"", b"\x00\xff", LISTING[:400]])
def test_what_is_no_listing_is_no_empty_bucket(body: bytes) -> None:
    with always(200, body) as storage, pytest.raises(StorageError):
        S3Bucket(storage.settings, "plans").list_keys("rounds/")


@pytest.mark.parametrize("length", ["x", "-1"])
def test_a_size_that_is_none_is_a_storage_error(length: str) -> None:
    headers = {"Content-Length": length, "Connection": "close"}
    with always(200, headers=headers) as storage, pytest.raises(StorageError):
        S3Bucket(storage.settings, "plans").get("key", 10)


def test_a_probe_of_a_storage_that_is_away_blames_no_promise() -> None:
    away = S3Settings(
        endpoint_url=f"http://127.0.0.1:{free_port()}", access_key="any", secret_key="any"
    )
    with always(503, error_body("ServiceUnavailable")) as storage:
        for settings in (away, storage.settings):
            bucket = S3Bucket(settings, "plans")
            with pytest.raises(StorageUnavailableError):
                probe_storage(bucket, role="coordinator")
            with pytest.raises(StorageUnavailableError):
                probe_inbox(bucket, NOW, role="north")


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    """A TLS server with a certificate that nobody has signed."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", key, "-out", certificate, "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_shake_hands, args=(server, context), daemon=True)
        thread.start()
        yield server.getsockname()[1]


def _shake_hands(server: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        try:
            context.wrap_socket(connection, server_side=True).close()
        except OSError:
            connection.close()


def test_a_certificate_of_an_unknown_authority_is_named(tls_port: int) -> None:
    settings = S3Settings(
        endpoint_url=f"https://127.0.0.1:{tls_port}", access_key="any", secret_key="any"
    )
    with pytest.raises(StorageError, match=r"a certificate that this.*ca_bundle") as raised:
        S3Bucket(settings, "plans").get("key", 10)
    assert not isinstance(raised.value, StorageUnavailableError), "it stays so until somebody acts"


def test_what_is_written_carries_a_digest_and_a_signature_of_its_body() -> None:
    """Buckets that lock by default ask for the digest."""
    data = b"a record"
    with always(200) as storage:
        bucket = S3Bucket(storage.settings, "plans")
        bucket.put_once("once", data)
        bucket.put("status", data)
        bucket.retain("once", "v1", Lock("governance", NOW))
    assert len(storage.requests) == 3
    for (_, headers), body in zip(storage.requests, storage.bodies, strict=True):
        assert (
            headers["Content-MD5"]
            == b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        )
        assert headers["X-Amz-Content-SHA256"] == hashlib.sha256(body).hexdigest()
        assert "content-md5" in headers["Authorization"]
    assert storage.bodies[:2] == [data, data]


def test_nothing_follows_a_redirect_to_another_region() -> None:
    headers = {"x-amz-bucket-region": "eu-central-1"}
    with always(301, error_body("PermanentRedirect"), headers) as storage:
        bucket = S3Bucket(storage.settings, "plans")
        for ask in (lambda: bucket.list_keys(""), lambda: bucket.stat("key")):
            with pytest.raises(StorageError, match="set region = 'eu-central-1'"):
                ask()
    assert [request for request, _ in storage.requests] == [
        "GET /plans?list-type=2&prefix=&encoding-type=url",
        "HEAD /plans/key",
    ]
