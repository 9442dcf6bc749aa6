"""A new storage credential of an embedded stack, for the coordinator or a silo, without a stop."""

from pathlib import Path

from aggregator.coordinator import Coordinator, load_coordinator
from data_contracts.protocol.bucket_layout import inbox_bucket, plans_bucket
from flows.federation.admin import HAND_OVER, STORAGE_CREDENTIALS, write_credentials
from infra.disk.durable_files import write_durably
from infra.stack.attached_storage import attach_storage
from infra.stack.credentials import renew_credential, revoke_replaced
from infra.stack.identities import coordinator_name, silo_name
from infra.terminal import command

COORDINATOR = "coordinator"


def rotate(home: Path, state: Path, who: str) -> list[str]:
    """Make a new credential beside the one in use; returns where it lies and what to do with it.

    The coordinator's is put where its processes read it, a silo's into its hand-over. Run again
    before the old one is revoked, it hands over the same. Raises ConsortiaError.
    """
    c = load_coordinator(home)
    credential = renew_credential(attach_storage(state), *_identity(c, who))
    revoke = command(
        "consortia", "stack", "rotate", who, "--state", state, "--home", home, "--revoke-old"
    )
    if who == COORDINATOR:
        path = home / STORAGE_CREDENTIALS
        write_credentials(path, credential)
        return [f"In {path}, and used from the next request on. Revoke the old one with", revoke]
    folder = home / HAND_OVER / who
    newest = c.feed.refresh_as_far_as_it_is_clear().membership
    write_credentials(folder / STORAGE_CREDENTIALS.name, credential)
    write_durably(folder / "membership.json", newest.envelope)
    return [
        f"Hand {folder} to the operator of {who} over a safe channel, who takes it with",
        command("silo-agent", "accept", folder, "--home", "HOME"),
        "while the agent runs. Its log says that the credential was replaced; then revoke the old",
        "one, which counts until then, with",
        revoke,
    ]


def revoke(home: Path, state: Path, who: str) -> list[str]:
    """Make the credential before the newest one count no more. Raises ConsortiaError."""
    c = load_coordinator(home)
    if revoke_replaced(attach_storage(state), *_identity(c, who)):
        return [f"The old credential of {who} is refused from now on."]
    return [f"{who} has one credential only: nothing was revoked."]


def _identity(c: Coordinator, who: str) -> tuple[str, str]:
    """The identity of the embedded storage, and a bucket that it may list."""
    federation = c.settings.federation
    if who == COORDINATOR:
        return coordinator_name(federation), plans_bucket(federation)
    return silo_name(federation, who), inbox_bucket(federation, who)
