"""The demo's rights holder: a registry of documentation that none of the institutions may hold.

The texts are the guides of the evaluations in the package inspect-evals (MIT, UK AI Security
Institute), which the demo fetches anyway. Its keys come from fixed words, so that the contracts,
which name the signer, are the same bytes on every machine; a real rights holder makes its own with
`consortia registry build`.
"""

import hashlib
import shutil
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.dataset.copyright.registry_builder import RegistryTerms, build_registry
from infra.disk.durable_files import write_durably
from infra.signing_keys import SigningKey

REGISTRY = "evaluation-guides"
_PARTS = ("manifest.json", "bloom", "key")
_MAX_GUIDE_BYTES = 1024 * 1024
_ISSUED = datetime(2026, 1, 1, tzinfo=UTC)
_EXPIRES = datetime(2036, 1, 1, tzinfo=UTC)


def signing_key() -> SigningKey:
    """The demo rights holder's key; anybody can make it, so it proves nothing outside the demo."""
    seed = hashlib.sha256(b"consortia demo: the rights holder's signing key").digest()
    return SigningKey(Ed25519PrivateKey.from_private_bytes(seed))


def write_registry(federation: str, wheel: Path, directory: Path) -> None:
    """Make the registry below `directory`, unless it is there."""
    if (directory / f"{REGISTRY}.manifest.json").exists():
        return
    key = hashlib.sha256(b"consortia demo: the key that silos share").digest()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_durably(directory / f"{REGISTRY}.key", key)
    terms = RegistryTerms(
        federation=federation,
        name=REGISTRY,
        rights_holder="Authors of the evaluation guides of inspect-evals",
        issued_at=_ISSUED,
        expires_at=_EXPIRES,
    )
    build_registry(guides(wheel), terms, key, signing_key(), directory)


def hand_over(directory: Path, silo_registries: Path) -> None:
    """Give a silo its copy of the registry."""
    silo_registries.mkdir(parents=True, exist_ok=True, mode=0o700)
    for part in _PARTS:
        name = f"{REGISTRY}.{part}"
        shutil.copy2(directory / name, silo_registries / name)


def guides(wheel: Path) -> Iterator[str]:
    """Text of every guide in the wheel, which is read as an archive and never imported."""
    with zipfile.ZipFile(wheel) as archive:
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            is_guide = member.filename.endswith("/README.md")
            if is_guide and member.file_size <= _MAX_GUIDE_BYTES:
                yield archive.read(member).decode("utf-8", errors="replace")
