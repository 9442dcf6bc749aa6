"""Ed25519 keys on local disk: created with mode 0600, never overwritten, never sent anywhere."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from data_contracts.errors import ConsortiaError
from infra.disk.durable_files import private_file
from infra.terminal import command_line


@dataclass(frozen=True)
class SigningKey:
    """A private key that can sign; satisfies `data_contracts.protocol.dsse.Signer`."""

    private_key: Ed25519PrivateKey

    @property
    def public_key_hex(self) -> str:
        """Raw public key, 64 hex digits."""
        return self.private_key.public_key().public_bytes_raw().hex()

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature (RFC 8032), 64 bytes."""
        return self.private_key.sign(message)


def create_key(path: Path) -> SigningKey:
    """Generate a key and write it to `path` (PKCS #8 PEM, mode 0600); refuses to overwrite."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with private_file(path) as file:
            file.write(pem)
    except FileExistsError:
        raise ConsortiaError(
            "signing key",
            expected="no file yet",
            found=str(path),
            action="keep the existing key, or move it away if it must be replaced",
        ) from None
    return SigningKey(key)


def ensure_key(path: Path) -> SigningKey:
    """The key in `path`, generated when there is none: an init that was interrupted goes on."""
    return load_key(path) if path.exists() else create_key(path)


def load_key(path: Path) -> SigningKey:
    """Read a key; refuses one that others on the machine can read."""
    try:
        mode = path.stat().st_mode & 0o077
        pem = path.read_bytes()
    except FileNotFoundError:
        raise _unusable(path, "no such file", "create it with the init command") from None
    if mode:
        raise _unusable(path, "a file that others can read", command_line("chmod", "600", path))
    try:
        key = load_pem_private_key(pem, password=None)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(path, "something else", "restore the key from its backup")
    return SigningKey(key)


def _unusable(path: Path, found: str, action: str) -> ConsortiaError:
    return ConsortiaError(
        f"signing key {path}", expected="an Ed25519 private key in PEM", found=found, action=action
    )
