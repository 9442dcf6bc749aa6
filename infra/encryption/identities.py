"""age X25519 identities on local disk: mode 0600, never overwritten, never sent anywhere.

A file is what `age-keygen` writes, so that its owner can open with `age` what is encrypted to it.
A new identity takes the file's name; the one before stays beside it, named by its public half.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyrage import IdentityError, x25519

from data_contracts.errors import ConsortiaError
from infra.disk.durable_files import (
    disk_faults,
    keep_durably,
    private_file,
    sync_directory,
    write_durably,
)
from infra.disk.toml_files import read_limited
from infra.terminal import command_line

MAX_IDENTITY_BYTES = 4096
NAMED_BY = 16
"""Letters of its public half, behind the `age1` of all, that name an earlier identity's file."""


@dataclass(frozen=True)
class Identity:
    """A private half; who has it opens what is encrypted to its `recipient`."""

    key: Any = field(repr=False)

    @property
    def recipient(self) -> str:
        """The public half, age1..."""
        return str(self.key.to_public())

    @property
    def secret(self) -> str:
        """AGE-SECRET-KEY-1...: for a file of mode 0600, or to be encrypted itself."""
        return str(self.key)


Identities = Sequence[Identity]


def new_identity() -> Identity:
    """One that nobody has had."""
    return Identity(x25519.Identity.generate())


def parse_identity(text: str) -> Identity:
    """From its secret half; raises ValueError without a word of it."""
    try:
        return Identity(x25519.Identity.from_str(text))
    except IdentityError:
        raise ValueError("no age X25519 identity") from None


def keep_identity(path: Path, identity: Identity) -> None:
    """Write it to the new file `path`, synced; refuses to overwrite."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with private_file(path) as file:
            file.write(_text(identity))
    except FileExistsError:
        raise ConsortiaError(
            "age identity",
            expected="no file yet",
            found=str(path),
            action="keep the identity that is there: adapters are encrypted to it",
        ) from None


def ensure_identity(path: Path) -> Identity:
    """The identity in `path`, made when there is none: an init that was interrupted goes on."""
    if path.exists():
        return load_identity(path)
    identity = new_identity()
    keep_identity(path, identity)
    return identity


def rotate_identity(path: Path) -> Identity:
    """A new identity in `path`; the one before stays beside it, for what was encrypted to it."""
    if path.exists():
        before = load_identity(path).recipient.removeprefix("age1")[:NAMED_BY]
        keep_durably(path, path.with_name(f"{path.stem}-{before}{path.suffix}"))
    identity = new_identity()
    write_durably(path, _text(identity))
    return identity


def destroy_identity(path: Path) -> None:
    """Overwrite a file with random bytes, synced, and remove it; raises ConsortiaError.

    That takes the bytes off a disk that writes in place. A file system that copies on write, a
    snapshot, a flash disk that spreads its writes and every backup may still have them.
    """
    size = path.stat().st_size
    with disk_faults(path, size):
        with path.open("r+b", buffering=0) as file:
            file.write(os.urandom(size))
            os.fsync(file.fileno())
        path.unlink()
        sync_directory(path.parent)


def identity_files(path: Path) -> list[Path]:
    """The file of the current identity and those of earlier ones, as far as they are there."""
    found = sorted(path.parent.glob(f"{path.stem}*{path.suffix}"))
    return sorted(found, key=lambda each: each != path)


def load_identities(path: Path) -> tuple[Identity, ...]:
    """The current identity first, then the earlier ones; none where none was made."""
    return tuple(load_identity(each) for each in identity_files(path))


def load_identity(path: Path) -> Identity:
    """Read an identity; refuses one that others on the machine can read."""
    try:
        mode = path.stat().st_mode & 0o077
        text = read_limited(path, MAX_IDENTITY_BYTES).decode("ascii", "replace")
    except FileNotFoundError:
        raise _unusable(path, "no such file", "restore it from its backup") from None
    if mode:
        raise _unusable(path, "a file that others can read", command_line("chmod", "600", path))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    secrets = [line for line in lines if not line.startswith("#")]
    try:
        (secret,) = secrets
        return parse_identity(secret)
    except ValueError:
        raise _unusable(path, "something else", "restore it from its backup") from None


def recipients_of(identities: Iterable[Identity]) -> frozenset[str]:
    """Their public halves."""
    return frozenset(identity.recipient for identity in identities)


def _text(identity: Identity) -> bytes:
    return f"# public key: {identity.recipient}\n{identity.secret}\n".encode()


def _unusable(path: Path, found: str, action: str) -> ConsortiaError:
    return ConsortiaError(
        f"age identity {path}",
        expected="one AGE-SECRET-KEY-1... line, for its owner alone",
        found=found,
        action=action,
    )
