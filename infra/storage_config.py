"""The storage section that every configuration has, and the credential file that it names."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, model_validator

from data_contracts.errors import ConsortiaError
from infra.addresses import http_address, is_plain
from infra.s3_client import S3Settings
from infra.terminal import command_line
from infra.toml_files import read_toml

CREDENTIAL_FIELDS = {"access_key", "secret_key"}
TEMPORARY = {"session_token"}
"""What a credential of STS has besides."""


class StorageSection(BaseModel):
    """S3-compatible endpoint, the way to it, and where the credential is: never in here.

    With `credential_source = "file"` it is in `credentials`, a TOML file of mode 0600; with "chain"
    AWS's default chain finds it (environment, `profile`, role of the machine) and renews it. Plain
    HTTP beyond this machine has to be allowed in so many words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint_url: Annotated[str, AfterValidator(http_address)]
    region: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,63}$")] = "us-east-1"
    addressing_style: Literal["path", "virtual", "auto"] = "path"
    credential_source: Literal["file", "chain"] = "file"
    credentials: Path = Path("keys/storage-credentials.toml")
    profile: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,100}$")] | None = None
    proxy: Annotated[str, AfterValidator(http_address)] | None = None
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

    @model_validator(mode="after")
    def _profile_has_a_chain(self) -> Self:
        if self.profile is not None and self.credential_source == "file":
            raise ValueError('expected credential_source = "chain" beside profile')
        return self


def s3_settings(section: StorageSection, home: Path) -> S3Settings:
    """Endpoint and credential; relative paths are relative to `home`. Raises ConsortiaError."""
    is_file = section.credential_source == "file"
    secrets = read_credentials(home / section.credentials) if is_file else {}
    return S3Settings.model_validate(
        {
            "endpoint_url": section.endpoint_url,
            "region": section.region,
            "ca_bundle": home / section.ca_bundle if section.ca_bundle else None,
            "addressing_style": section.addressing_style,
            "profile": section.profile,
            "proxy": section.proxy,
            "allow_plain_http": section.allow_plain_http,
            **secrets,
        }
    )


def read_credentials(path: Path, *, is_private: bool = True) -> dict[str, str]:
    """access_key, secret_key and perhaps session_token; ConsortiaError for anything else.

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
    is_complete = set(secrets) - TEMPORARY == CREDENTIAL_FIELDS
    if not is_complete or not all(isinstance(v, str) and v for v in secrets.values()):
        raise _unusable(
            path,
            "other or empty fields",
            "write access_key and secret_key, and session_token if it came with them",
        )
    return secrets


def _unusable(path: Path, found: str, action: str) -> ConsortiaError:
    return ConsortiaError(
        f"storage credential {path}",
        expected="a private TOML file with access_key and secret_key",
        found=found,
        action=action,
    )
