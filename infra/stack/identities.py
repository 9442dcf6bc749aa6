"""The identities of the embedded object storage, and what each may do.

SeaweedFS reads them from one file (mode 0600), which is also where the generated secrets are kept.
All but the administrator have an IAM policy of `infra.storage.policies` and nothing else:
SeaweedFS's own actions cannot tell writing from deleting.
"""

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_contracts.errors import ConsortiaError
from infra.disk.durable_files import write_durably

ADMIN = "admin"


@dataclass(frozen=True)
class StorageIdentity:
    """A name, its credential, and its IAM policy; the administrator has none and may do all.

    `replaced` is the key and secret before, while they still count beside the new ones.
    """

    name: str
    access_key: str
    secret_key: str = field(repr=False)
    policy: str | None
    replaced: tuple[str, str] | None = field(default=None, repr=False)


def new_identity(name: str, policy: str | None) -> StorageIdentity:
    """An identity with a fresh credential: 80 bits of key id, 256 bits of secret."""
    access_key = secrets.token_hex(10).upper()
    return StorageIdentity(name, access_key, secrets.token_urlsafe(32), policy)


def coordinator_name(federation: str) -> str:
    """Identity of a federation's coordinator."""
    return f"{federation}-coordinator"


def silo_name(federation: str, silo: str) -> str:
    """Identity of one silo of a federation."""
    return f"{federation}-silo-{silo}"


def load_identities(path: Path) -> dict[str, StorageIdentity]:
    """Identities by name; empty when there is no file yet."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        policies = {entry["name"]: entry["content"] for entry in document.get("policies", ())}
        return {e["name"]: _from_entry(e, policies) for e in document["identities"]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConsortiaError(
            f"storage identities {path}",
            expected="the file that the local stack wrote",
            found=type(error).__name__,
            action="restore it from a backup; without it nobody can reach the stored objects",
        ) from None


def save_identities(path: Path, identities: Iterable[StorageIdentity]) -> None:
    """Replace the file as a whole, so that the server never reads half of it."""
    identities = list(identities)
    document = {
        "identities": [_to_entry(identity) for identity in identities],
        "policies": [
            {"name": identity.name, "content": identity.policy}
            for identity in identities
            if identity.policy is not None
        ],
    }
    write_durably(path, json.dumps(document, indent=2).encode(), mode=0o600)


def _from_entry(entry: dict[str, Any], policies: dict[str, str]) -> StorageIdentity:
    keys = [(c["accessKey"], c["secretKey"]) for c in entry["credentials"]]
    name, replaced = entry["name"], keys[1] if len(keys) > 1 else None
    return StorageIdentity(name, *keys[0], policies.get(name), replaced)


def _to_entry(identity: StorageIdentity) -> dict[str, Any]:
    keys = [(identity.access_key, identity.secret_key)]
    if identity.replaced is not None:
        keys.append(identity.replaced)
    credentials = [{"accessKey": access, "secretKey": secret} for access, secret in keys]
    entry: dict[str, Any] = {"name": identity.name, "credentials": credentials}
    if identity.policy is None:
        return entry | {"actions": ["Admin"]}
    return entry | {"actions": [], "policyNames": [identity.name]}
