"""The storage section that every configuration has, and the credential file that it names."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, model_validator

from data_contracts.errors import ConsortiaError
from infra.addresses import http_address, is_plain
from infra.s3_client import S3Settings
from infra.terminal import command_line
from infra.toml_files import read_toml

CREDENTIAL_FIELDS = {"access_key", "secret_key"}


class StorageSection(BaseModel):
    """S3-compatible endpoint; `credentials` is a TOML file of mode 0600, outside this section.

    Plain HTTP beyond this machine has to be allowed in so many words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint_url: Annotated[str, AfterValidator(http_address)]
    region: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,63}$")] = "us-east-1"
    credentials: Path = Path("keys/storage-credentials.toml")
    ca_bundle: Path | None = None
    allow_plain_http: bool = False

    @model_validator(mode="after")
    def _is_private(self) -> Self:
        if is_plain(self.endpoint_url) and not self.allow_plain_http:
            raise ValueError(
                "expected https:// in endpoint_url, or allow_plain_http = true where the network "
                "below is encrypted"
            )
        return self


def s3_settings(section: StorageSection, home: Path) -> S3Settings:
    """Endpoint and credential; relative paths are relative to `home`. Raises ConsortiaError."""
    path = home / section.credentials
    secrets = read_credentials(path)
    return S3Settings(
        endpoint_url=section.endpoint_url,
        region=section.region,
        access_key=secrets["access_key"],
        secret_key=secrets["secret_key"],
        ca_bundle=home / section.ca_bundle if section.ca_bundle else None,
        allow_plain_http=section.allow_plain_http,
    )


def read_credentials(path: Path, *, is_private: bool = True) -> dict[str, str]:
    """access_key and secret_key; ConsortiaError for anything else.

    With `is_private` the file must be one that nobody else can read.
    """
    try:
        secrets = read_toml(path)
        others_can_read = path.stat().st_mode & 0o077
    except (OSError, ValueError) as error:
        # What a parser says might quote the secret.
        found = getattr(error, "strerror", None) or "something else"
        raise _unusable(path, found, "write the credential that was handed over") from None
    if is_private and others_can_read:
        raise _unusable(path, "a file that others can read", command_line("chmod", "600", path))
    if set(secrets) != CREDENTIAL_FIELDS or not all(isinstance(v, str) for v in secrets.values()):
        raise _unusable(path, "other fields", "write exactly access_key and secret_key")
    return secrets


def _unusable(path: Path, found: str, action: str) -> ConsortiaError:
    return ConsortiaError(
        f"storage credential {path}",
        expected="a private TOML file with access_key and secret_key",
        found=found,
        action=action,
    )
