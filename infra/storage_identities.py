"""Who may do what in the embedded object storage.

SeaweedFS reads these identities from one file (mode 0600), which is also where the generated
secrets are kept. Actions name whole buckets and never end in `*`, since `Read:inbox-1*` would also
match `inbox-10`. A silo that may write its inbox must be able to read it too: without Read, GET,
HEAD and LIST fail while overwriting succeeds. Write also lets a silo delete in its own inbox and
suspend that bucket's versioning: what counts is the coordinator's copy in the ledger.
"""

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_contracts.bucket_layout import inbox_bucket, ledger_bucket, plans_bucket
from data_contracts.errors import ConsortiaError
from infra.durable_files import write_durably

ADMIN = "admin"


@dataclass(frozen=True)
class StorageIdentity:
    """A name, its credential and its SeaweedFS actions such as `Read:<bucket>`."""

    name: str
    access_key: str
    secret_key: str = field(repr=False)
    actions: tuple[str, ...]


def new_identity(name: str, actions: Iterable[str]) -> StorageIdentity:
    """An identity with a fresh credential: 80 bits of key id, 256 bits of secret."""
    access_key = secrets.token_hex(10).upper()
    return StorageIdentity(name, access_key, secrets.token_urlsafe(32), tuple(actions))


def coordinator_name(federation: str) -> str:
    """Identity of a federation's coordinator."""
    return f"{federation}-coordinator"


def silo_name(federation: str, silo: str) -> str:
    """Identity of one silo of a federation."""
    return f"{federation}-silo-{silo}"


def coordinator_actions(federation: str, silos: Iterable[str]) -> tuple[str, ...]:
    """Write plans and ledger, read the inboxes."""
    own = (plans_bucket(federation), ledger_bucket(federation))
    actions = [f"{verb}:{name}" for name in own for verb in ("Read", "Write", "List", "Tagging")]
    for silo in silos:
        inbox = inbox_bucket(federation, silo)
        actions += [f"Read:{inbox}", f"List:{inbox}"]
    return tuple(actions)


def silo_actions(federation: str, silo: str) -> tuple[str, ...]:
    """Read plans; read and write the silo's own inbox; see nothing of another silo."""
    plans, inbox = plans_bucket(federation), inbox_bucket(federation, silo)
    return (
        *(f"{verb}:{plans}" for verb in ("Read", "List")),
        *(f"{verb}:{inbox}" for verb in ("Read", "Write", "List")),
    )


def load_identities(path: Path) -> dict[str, StorageIdentity]:
    """Identities by name; empty when there is no file yet."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["identities"]
        return {entry["name"]: _from_entry(entry) for entry in entries}
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
    entries = [_to_entry(identity) for identity in identities]
    document = json.dumps({"identities": entries}, indent=2)
    write_durably(path, document.encode(), mode=0o600)


def _from_entry(entry: dict[str, Any]) -> StorageIdentity:
    credential = entry["credentials"][0]
    return StorageIdentity(
        entry["name"], credential["accessKey"], credential["secretKey"], tuple(entry["actions"])
    )


def _to_entry(identity: StorageIdentity) -> dict[str, Any]:
    credential = {"accessKey": identity.access_key, "secretKey": identity.secret_key}
    return {
        "name": identity.name,
        "credentials": [credential],
        "actions": list(identity.actions),
    }
