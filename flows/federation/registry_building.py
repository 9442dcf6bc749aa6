"""A rights holder's registry from text files, with the keys that belong to it.

`<name>.key` is shared with the silos; `rights-holder-key.pem` signs and never leaves. Both are
made when they are not there, so that a renewed registry keeps its key.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import ValidationError

from data_contracts.dataset.copyright.registry_builder import RegistryTerms, build_registry
from data_contracts.errors import DataStewardError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import CopyrightRegistry
from infra.clock import SystemClock
from infra.disk.durable_files import private_file
from infra.signing_keys import create_key, load_key

SIGNING_KEY = "rights-holder-key.pem"
KEY_BYTES = 32


@dataclass(frozen=True)
class BuiltRegistry:
    """The sealed manifest, and the public key (hex) that a contract names as its signer."""

    manifest: Verified[CopyrightRegistry]
    signer: str


def build_from_files(
    texts: Sequence[Path],
    name: str,
    rights_holder: str,
    federation: str,
    into: Path,
    validity: timedelta,
) -> BuiltRegistry:
    """Write the registry `name` into `into`; each file is one work in UTF-8."""
    now = SystemClock().now()
    try:
        terms = RegistryTerms(
            federation=federation,
            name=name,
            rights_holder=rights_holder,
            issued_at=now,
            expires_at=now + validity,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _unusable(".".join(map(str, first["loc"])) or "terms", first["msg"]) from None
    into.mkdir(parents=True, exist_ok=True, mode=0o700)
    signing = into / SIGNING_KEY
    signer = load_key(signing) if signing.exists() else create_key(signing)
    built = build_registry(_texts(texts), terms, _shared_key(into / f"{name}.key"), signer, into)
    return BuiltRegistry(built.manifest, signer.public_key_hex)


def _texts(paths: Sequence[Path]) -> Iterator[str]:
    for path in paths:
        try:
            yield path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(str(path), f"{type(error).__name__}: not readable as UTF-8") from None


def _shared_key(path: Path) -> bytes:
    if not path.exists():
        with private_file(path) as file:
            file.write(secrets.token_bytes(KEY_BYTES))
    return path.read_bytes()


def _unusable(what: str, found: str) -> DataStewardError:
    return DataStewardError(
        f"registry: {what}",
        expected="texts in UTF-8 and a name in lower-case letters, digits and -",
        found=found,
        action="correct it and build the registry again",
    )
