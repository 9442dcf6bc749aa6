"""One configured S3 client, and every one of its failures as a StorageError.

Guaranteed: nothing is taken from the user's AWS profiles or environment credentials unless the
settings name no credential, which asks for AWS's default chain; secrets are in no message and no
repr, connections to loopback ignore proxies, and a secret key never travels over plain HTTP beyond
this machine unless the settings say so. HTTPS_PROXY and NO_PROXY count where `proxy` is not set.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader, create_loader
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from urllib3.exceptions import HTTPError

from data_contracts.errors import StorageError
from data_contracts.shown_text import quoted
from infra.addresses import address_fault, is_plain
from infra.loopback import is_loopback
from infra.storage.credential_file import CredentialFile, asked_as
from infra.storage.s3_faults import CLIENT_FAULTS, AskedPlace, error_code, status_of, storage_fault
from infra.storage.s3_requests import prepare_requests, sign_again_after_a_change

__all__ = ["S3Settings", "connect", "error_code", "status_of", "translated"]

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60
MAX_ATTEMPTS = 4
MAX_CONNECTIONS = 32
STREAM_FAULTS = (BotoCoreError, HTTPError, ConnectionError, TimeoutError)
"""What reading a body can raise once the storage has answered."""


class S3Settings(BaseModel):
    """Where the storage is and who asks. `checksums` is botocore's request and response mode.

    The credential is in the file of `credential`, or in `access_key` and what belongs to it;
    without either AWS's default chain finds it, in `profile` if one is named.
    """

    # Without hide_input_in_errors a message about one field would quote the secret of another.
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, arbitrary_types_allowed=True
    )

    endpoint_url: str
    region: str = "us-east-1"
    credential: CredentialFile | None = None
    access_key: str = Field(default="", repr=False)
    secret_key: SecretStr = SecretStr("")
    session_token: SecretStr | None = None
    profile: str | None = None
    proxy: str | None = None
    ca_bundle: Path | None = None
    addressing_style: Literal["path", "virtual", "auto"] = "path"
    checksums: Literal["when_required", "when_supported"] = "when_required"
    allow_plain_http: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether the endpoint is on this machine."""
        return is_loopback(self.endpoint_url)

    @property
    def asked_as(self) -> str:
        """Who asks, in words that give no key away."""
        if self.credential is not None:
            return self.credential.asked_as
        if self.access_key:
            return asked_as(self.access_key)
        return f"the AWS profile {self.profile}" if self.profile else "AWS's default chain"

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


@lru_cache(maxsize=64)
def _client(settings: S3Settings) -> Any:
    token = settings.session_token
    client = _session(settings).create_client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key or None,
        aws_secret_access_key=settings.secret_key.get_secret_value() or None,
        aws_session_token=token.get_secret_value() if token else None,
        verify=str(settings.ca_bundle) if settings.ca_bundle else True,
        config=_client_config(settings),
    )
    prepare_requests(client)
    if settings.credential is not None:
        sign_again_after_a_change(client, settings.credential)
    return client


@lru_cache(maxsize=4)
def _loader(data_path: str | None) -> Loader:
    """What botocore knows of S3, read from its files once and not by every client again."""
    return create_loader(data_path)


def _session(settings: S3Settings) -> botocore.session.Session:
    session = _own_session(settings)
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


def _own_session(settings: S3Settings) -> botocore.session.Session:
    of_nobody = {
        "profile": (None, None, None, None),
        "config_file": (None, None, os.devnull, None),
        "credentials_file": (None, None, os.devnull, None),
    }
    no_bundle = {"ca_bundle": (None, None, None, None)}
    if settings.credential is not None or settings.access_key:
        session = botocore.session.Session(session_vars=of_nobody | no_bundle)
        if settings.credential is not None:
            session.register_component("credential_provider", settings.credential)
        return session
    session = botocore.session.Session(session_vars=no_bundle)
    if settings.profile is not None:
        session.set_config_variable("profile", settings.profile)
    return session


def _client_config(settings: S3Settings) -> Config:
    return Config(
        signature_version="s3v4",
        # With a Content-MD5 botocore would leave the body out of the signature.
        s3={"addressing_style": settings.addressing_style, "payload_signing_enabled": True},
        request_checksum_calculation=settings.checksums,
        response_checksum_validation=settings.checksums,
        retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        max_pool_connections=MAX_CONNECTIONS,
        proxies=_proxies(settings),
        user_agent_extra="consortia",
    )


def _proxies(settings: S3Settings) -> dict[str, str] | None:
    """None leaves the choice to the environment."""
    if settings.is_loopback:
        return {}
    return {"http": settings.proxy, "https": settings.proxy} if settings.proxy else None


@contextmanager
def translated(settings: S3Settings, bucket: str, key: str = "") -> Iterator[None]:
    """Turn whatever the client raises inside the block into a StorageError of `s3_faults`."""
    try:
        yield
    except CLIENT_FAULTS as error:
        place = AskedPlace(settings.endpoint_url, bucket, key, settings.asked_as)
        raise storage_fault(error, place) from None
