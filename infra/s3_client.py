"""One configured S3 client, and every one of its failures as a StorageError.

Guaranteed: nothing is taken from the user's AWS profiles or environment credentials, secrets are
in no message and no repr, connections to loopback ignore proxies, and a secret key never travels
over plain HTTP beyond this machine unless the settings say so. HTTPS_PROXY and NO_PROXY count.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from urllib3.exceptions import HTTPError

from data_contracts.errors import StorageError
from data_contracts.shown_text import quoted
from infra.addresses import address_fault, is_plain
from infra.loopback import is_loopback
from infra.object_store import AccessDeniedError, OutageError, RefusedRequestError

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60
MAX_ATTEMPTS = 4
MAX_CONNECTIONS = 32
PASSING = (404, 408, 409, 412, 429)
"""Statuses that are about a moment or a missing thing, and not about the request."""
BUSY = (408, 429)
"""Statuses below 500 of a storage that cannot answer just now."""
NEVER = (501, 505)
"""Statuses from 500 of a storage that cannot answer such a request at any time."""
NO_ANSWER = (
    NoConnectionError,
    HTTPClientError,
    IncompleteReadError,
    HTTPError,
    ConnectionError,
    TimeoutError,
)
"""What the client raises when no answer came, or only a part of one."""
STREAM_FAULTS = (BotoCoreError, HTTPError, ConnectionError, TimeoutError)
"""What reading a body can raise once the storage has answered."""


class S3Settings(BaseModel):
    """Where the storage is and who asks. `checksums` is botocore's request and response mode."""

    # Without hide_input_in_errors a message about one field would quote the secret of another.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint_url: str
    region: str = "us-east-1"
    access_key: str = Field(repr=False)
    secret_key: SecretStr
    ca_bundle: Path | None = None
    addressing_style: Literal["path", "virtual", "auto"] = "path"
    checksums: Literal["when_required", "when_supported"] = "when_required"
    allow_plain_http: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether the endpoint is on this machine."""
        return is_loopback(self.endpoint_url)

    @model_validator(mode="after")
    def _endpoint_is_safe(self) -> "S3Settings":
        url = self.endpoint_url
        if address_fault(url) or (is_plain(url) and not self.allow_plain_http):
            raise StorageError(
                "setting endpoint_url",
                expected="an address such as https://storage.example:8333; plain http only on "
                "this machine",
                found=quoted(url),
                action="give the storage a certificate (ca_bundle names a private authority), or "
                "set allow_plain_http where the network below is encrypted",
            )
        return self


def connect(settings: S3Settings, bucket: str) -> Any:
    """A botocore S3 client; makes no request. Clients are safe to share between threads."""
    if settings.ca_bundle is not None and not settings.ca_bundle.is_file():
        raise StorageError(
            "setting ca_bundle",
            expected="a file of PEM certificates",
            found=f"no file {settings.ca_bundle}",
            action="correct the path, or drop the setting for a publicly trusted certificate",
        )
    with translated(settings, bucket):
        return _client(settings)


@lru_cache(maxsize=16)
def _client(settings: S3Settings) -> Any:
    session = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": (None, None, os.devnull, None),
            "credentials_file": (None, None, os.devnull, None),
            "ca_bundle": (None, None, None, None),
        }
    )
    return session.create_client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key.get_secret_value(),
        verify=str(settings.ca_bundle) if settings.ca_bundle else True,
        config=_client_config(settings),
    )


def _client_config(settings: S3Settings) -> Config:
    return Config(
        signature_version="s3v4",
        s3={"addressing_style": settings.addressing_style},
        request_checksum_calculation=settings.checksums,
        response_checksum_validation=settings.checksums,
        retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        max_pool_connections=MAX_CONNECTIONS,
        proxies={} if settings.is_loopback else None,
        user_agent_extra="consortia",
    )


@contextmanager
def translated(settings: S3Settings, bucket: str, key: str = "") -> Iterator[None]:
    """Turn whatever the client raises inside the block into a StorageError."""
    try:
        yield
    except ClientError as error:
        raise _from_answer(error, settings, bucket, key) from None
    except (BotoCoreError, HTTPError, ConnectionError, OSError) as error:
        raise _kind_of_fault(error)(
            f"object storage at {settings.endpoint_url}",
            expected="an answer",
            found=f"{type(error).__name__}: {_first_line(str(error))}",
            action="check that it runs and that address, proxy and ca_bundle are right",
        ) from None


def status_of(error: ClientError) -> int:
    """HTTP status of an error answer, 0 when unknown."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def error_code(error: ClientError) -> str:
    """S3 error code of an error answer, such as NoSuchKey."""
    return str(error.response.get("Error", {}).get("Code", ""))


def _from_answer(error: ClientError, settings: S3Settings, bucket: str, key: str) -> StorageError:
    code, status = error_code(error), status_of(error)
    place = f"{settings.endpoint_url}/{bucket}/{key}"
    if status in (401, 403):
        return AccessDeniedError(
            place,
            expected=f"access with the access key that starts with {settings.access_key[:4]!r}",
            found=f"{status} {code}",
            action="check access key and secret; the storage operator grants access per bucket",
        )
    if code == "NoSuchBucket":
        return StorageError(
            place,
            expected=f"a bucket named {bucket}",
            found="no such bucket",
            action="check the federation id and the endpoint, or have the bucket created",
        )
    return _kind_of_answer(status)(
        place,
        expected=f"{error.operation_name} to succeed",
        found=f"{status} {code}: {_first_line(str(error.response['Error'].get('Message', '')))}",
        action="look into the log of the object storage at this time; the step can run again",
    )


def _kind_of_answer(status: int) -> type[StorageError]:
    if status in BUSY or (status >= 500 and status not in NEVER):
        return OutageError
    return RefusedRequestError if 400 <= status < 500 and status not in PASSING else StorageError


def _kind_of_fault(error: Exception) -> type[StorageError]:
    """A certificate that is not trusted stays so; a server that is away comes back."""
    is_outage = isinstance(error, NO_ANSWER) and not isinstance(error, SSLError)
    return OutageError if is_outage else StorageError


def _first_line(text: str) -> str:
    return text.splitlines()[0][:200] if text else "no message"
