"""The storage section that every configuration has, and the credential file that it names."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, StringConstraints, model_validator

from infra.addresses import http_address, is_plain
from infra.disk.toml_files import TomlTable
from infra.storage.credential_file import credential_file, read_credentials
from infra.storage.s3_client import S3Settings

__all__ = ["MORE_SETTINGS", "StorageSection", "read_credentials", "s3_settings"]

MORE_SETTINGS = """\
# region = "eu-central-1"              # that requests are signed for; "us-east-1" unless set
# addressing_style = "virtual"         # the bucket in the host's name; or "auto"; "path" unless set
# ca_bundle = "ca.pem"                 # of a private certificate authority
# proxy = "http://proxy.example:3128"  # unless set, HTTPS_PROXY and NO_PROXY count
# credential_source = "chain"          # environment, profile, SSO or role, as AWS finds them
# profile = "oncology"                 # for the chain
"""
"""The rest of the section, as the files that are written for operators show it."""


class StorageSection(TomlTable):
    """S3-compatible endpoint, the way to it, and where the credential is: never in here.

    With `credential_source = "file"` it is in `credentials`, a TOML file of mode 0600; with "chain"
    AWS's default chain finds it (environment, `profile`, role of the machine) and renews it. Plain
    HTTP beyond this machine has to be allowed in so many words.
    """

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
    """Endpoint and credential; relative paths are relative to `home`. Raises ConsortiaError.

    A credential file is followed: its owner may replace it while a process uses it.
    """
    is_file = section.credential_source == "file"
    return S3Settings.model_validate(
        {
            "endpoint_url": section.endpoint_url,
            "region": section.region,
            "ca_bundle": home / section.ca_bundle if section.ca_bundle else None,
            "addressing_style": section.addressing_style,
            "profile": section.profile,
            "proxy": section.proxy,
            "allow_plain_http": section.allow_plain_http,
            "credential": credential_file(home / section.credentials) if is_file else None,
        }
    )
