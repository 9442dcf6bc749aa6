"""A storage credential in a file, which its owner may replace while processes use it.

Guaranteed: a request that is signed after the file was replaced is signed with what it says then.
A file that cannot be used (half written, open to others, no TOML, gone) changes nothing: what was
read before stays in use, and one line says so. Nothing of a secret is in a message or a repr.
"""

import logging
from functools import lru_cache
from pathlib import Path
from threading import Lock, local
from typing import Any

from botocore.credentials import Credentials

from data_contracts.errors import ConsortiaError
from infra.disk.toml_files import read_toml
from infra.terminal import command_line

CREDENTIAL_FIELDS = {"access_key", "secret_key"}
TEMPORARY = {"session_token"}
"""What a credential of STS has besides."""
MAX_FILES = 64

log = logging.getLogger("storage-credential")

_FileState = tuple[int, int, int, int] | None


class CredentialFile(Credentials):  # type: ignore[misc]
    """What botocore asks for a credential, at each request; safe to share between threads.

    Raises ConsortiaError when it is made and the file cannot be used: there is nothing before it.
    """

    access_key: str
    secret_key: str
    token: str | None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock, self._signed = Lock(), local()
        # Looked at before it is read, so that a change in between is seen at the next request.
        self._seen = _state_of(path)
        super().__init__(*_read(path), method="file")

    def __repr__(self) -> str:
        return f"CredentialFile({self._path})"

    def load_credentials(self) -> "CredentialFile":
        """Itself: to botocore this is also where credentials come from."""
        return self

    def get_frozen_credentials(self) -> Any:
        """What the file says now, or said when it could last be used."""
        with self._lock:
            self._refresh_from_file()
            self._signed.by_this_thread = self._secrets
            return super().get_frozen_credentials()

    def has_changed(self) -> bool:
        """Whether the file now says another credential than the one this thread last signed with.

        Another thread may have read the new one since.
        """
        with self._lock:
            self._refresh_from_file()
            return self._secrets != getattr(self._signed, "by_this_thread", self._secrets)

    @property
    def _secrets(self) -> tuple[str, str, str | None]:
        return self.access_key, self.secret_key, self.token

    def _refresh_from_file(self) -> None:
        """Read the file again if it is another one; with the lock held."""
        state = _state_of(self._path)
        if state != self._seen:
            self._seen = state
            self._read_again()

    @property
    def asked_as(self) -> str:
        """Who asked last, in words that give no key away."""
        return asked_as(self.access_key)

    def _read_again(self) -> None:
        before = self._secrets
        try:
            found = _read(self._path)
        except ConsortiaError as error:
            log.warning("%s. Until then %s is used, as before", error, self.asked_as)
            return
        self.access_key, self.secret_key, self.token = found
        if found != before:
            log.warning("%s was replaced: from now on %s is used", self._path, self.asked_as)


@lru_cache(maxsize=MAX_FILES)
def credential_file(path: Path) -> CredentialFile:
    """The one of this process for `path`, so that all its clients change together."""
    return CredentialFile(path)


def asked_as(access_key: str) -> str:
    """An access key in a message."""
    return f"the access key that starts with {access_key[:4]!r}"


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


def _read(path: Path) -> tuple[str, str, str | None]:
    secrets = read_credentials(path)
    return secrets["access_key"], secrets["secret_key"], secrets.get("session_token")


def _state_of(path: Path) -> _FileState:
    """What changes whenever a file is written, replaced or given another mode; None without one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _unusable(path: Path, found: str, action: str) -> ConsortiaError:
    return ConsortiaError(
        f"storage credential {path}",
        expected="a private TOML file with access_key and secret_key",
        found=found,
        action=action,
    )
