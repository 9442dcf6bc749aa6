"""Creating a federation and adding silos: keys, memberships, buckets, what is handed over.

In order: keys exist before they are named, buckets and credentials before a membership names
their silo, and every membership is signed by the root key, which belongs offline afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aggregator.coordinator import (
    CONTRACTS_DIRECTORY,
    COORDINATOR_IDENTITY,
    COORDINATOR_KEY,
    MEMBERSHIP_NAME,
    Coordinator,
    load_coordinator,
)
from aggregator.planning.membership_changes import MEMBERSHIP_VALIDITY, with_silo
from aggregator.settings.federation import SETTINGS_NAME, parse_settings
from data_contracts.dataset.contract import parse_contract
from data_contracts.dataset.contract.agreement import agreement_path
from data_contracts.dataset.contract.strict_yaml import read_limited
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.bucket_layout import PROBE_PREFIX, inbox_bucket, membership_slot
from data_contracts.protocol.dsse import fingerprint
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.records import Membership
from data_contracts.protocol.records.membership import Member
from data_contracts.protocol.trust_anchor import load_trust_anchor, open_trust_anchor
from data_contracts.protocol.trusted_feed import TrustedFeed
from flows.federation.membership_signing import Draft, Published, change_membership
from flows.federation.templates import FEDERATION_TEMPLATE
from infra.clock import SystemClock
from infra.disk.durable_files import write_durably
from infra.disk.toml_text import toml_string
from infra.encryption.identities import ensure_identity
from infra.signing_keys import ensure_key
from infra.stack.local_stack import RunningStorage, add_federation
from infra.stack.local_stack import add_silo as add_silo_to_storage
from infra.storage.config import MORE_SETTINGS
from infra.storage.probe import probe_inbox, probe_locks, probe_storage, require_promises
from infra.storage.s3_bucket import S3Bucket
from infra.storage.s3_client import S3Settings
from infra.storage.single_writer import claim_record
from infra.terminal import command_line

ROOT_KEY = Path("keys/root-key.pem")
STORAGE_CREDENTIALS = Path("keys/storage-credentials.toml")
HAND_OVER = Path("hand-over")


@dataclass(frozen=True)
class FederationTerms:
    """What `federation.toml` starts with; everything can be edited there afterwards."""

    federation: str
    run: str
    purpose: str
    model_name: str
    model_licence: str
    model_path: Path
    prefect_api_url: str
    endpoint_url: str
    model_hub_id: str = ""
    prefect_auth: Path = Path("keys/prefect-auth")
    allow_plain_http: bool = False


def init_federation(home: Path, terms: FederationTerms, storage: RunningStorage | None) -> None:
    """Write settings and keys, create the buckets on the embedded storage, sign membership 1.

    Without `storage` the endpoint is somebody else's: the buckets and the coordinator's
    credential must exist; `consortia storage policy` says with which rights.
    """
    settings_path, text = home / SETTINGS_NAME, settings_text(terms)
    parse_settings(text.encode(), home)
    if settings_path.exists():
        raise FederationOperatorError(
            str(settings_path),
            expected="no federation yet",
            found="one",
            action="edit it, or choose another --home",
        )
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if storage is not None:
        write_credentials(home / STORAGE_CREDENTIALS, add_federation(storage, terms.federation))
    _sign_first_membership(home, terms.federation)
    write_durably(settings_path, text.encode())
    try:
        publish_membership(home)
    except BaseException:
        # Without its membership in storage there is no federation yet: init can be run again.
        settings_path.unlink()
        raise


def settings_text(terms: FederationTerms) -> str:
    """The settings file of a new federation."""
    hub_id = terms.model_hub_id
    model_hub = f"hub_id = {toml_string(hub_id)}" if hub_id else '# hub_id = "organisation/name"'
    values = {name: toml_string(value) for name, value in vars(terms).items()}
    return FEDERATION_TEMPLATE.format(
        more_storage=MORE_SETTINGS,
        plain="" if terms.allow_plain_http else "# ",
        model_hub=f"{model_hub} # where a user of the adapter can have the model",
        **values,
    )


def publish_membership(home: Path) -> Verified[Membership]:
    """Put the first membership into storage; the storage is probed first."""
    c = load_coordinator(home)
    require_promises(probe_storage(c.plans, role="coordinator"))
    membership = load_trust_anchor(home / MEMBERSHIP_NAME)
    winner = claim_record(
        c.plans, membership_slot(membership.record.number), membership, open_trust_anchor
    )
    if winner.digest != membership.digest:
        raise FederationOperatorError(
            f"federation {membership.record.federation}",
            expected="storage without a federation of that name",
            found="one that was founded with other keys",
            action="choose another --federation, or go on from the home directory of that one",
        )
    return winner


@dataclass(frozen=True)
class Joining:
    """Who joins, or has a new key, contract or name; see `membership_changes.with_silo`."""

    silo: str
    public_key: str
    contract: Path
    name: str | None = None
    first_round: int | None = None
    recipient: str | None = None


def add_silo(
    home: Path, joining: Joining, storage: RunningStorage | None, root_keys: Sequence[Path] = ()
) -> tuple[Path, Published | Draft]:
    """Create the silo's bucket and credential, sign a membership with it, file its contract.

    Returns the directory with what the silo operator gets (the membership and the credential), and
    what became of the membership.
    """
    c = load_coordinator(home)
    silo, contract = joining.silo, joining.contract
    hand_over = home / HAND_OVER / silo
    contract_bytes = read_limited(contract)
    parse_contract(contract_bytes, str(contract))
    change = with_silo(
        silo, joining.public_key, joining.first_round, joining.name, joining.recipient
    )
    if storage is not None:
        credential = add_silo_to_storage(storage, c.settings.federation, silo)
        write_credentials(hand_over / "storage-credentials.toml", credential)
        inbox = S3Bucket(credential, inbox_bucket(c.settings.federation, silo))
        require_promises(probe_inbox(inbox, c.clock.now(), role=silo))
    _require_inbox(c, silo)
    outcome = change_membership(c, change, root_keys=root_keys)
    filed = home / CONTRACTS_DIRECTORY / f"{silo}.yaml"
    write_durably(filed, contract_bytes)
    if agreement_path(contract).exists() and contract != filed:
        write_durably(agreement_path(filed), agreement_path(contract).read_bytes())
    if isinstance(outcome, Published):
        write_durably(hand_over / "membership.json", outcome.membership.envelope)
    return hand_over, outcome


def _require_inbox(c: Coordinator, silo: str) -> None:
    """Try the inbox as the coordinator, before anybody counts on it, as far as there is something.

    Raises StorageError where it is missing, or may not be read or locked.
    """
    if c.settings.ledger.place == "copy":
        c.inbox(silo).list_keys(PROBE_PREFIX)
        return
    outcome = probe_locks(c.inbox(silo), c.clock.now(), role="coordinator")
    if outcome is not None:
        require_promises(outcome)


def describe(home: Path) -> list[tuple[str, str]]:
    """What to compare out of band: fingerprints of the coordinator and of every silo."""
    c = load_coordinator(home)
    feed = c.feed.refresh_as_far_as_it_is_clear()
    membership = feed.membership.record
    expiry = f"expires {membership.expires_at:%Y-%m-%d}"
    if membership.expires_soon(c.clock.now()):
        renew = command_line("consortia", "federation", "renew", "--home", home.resolve())
        expiry += f": renew it with `{renew}`"
    rows = [
        ("federation", membership.federation),
        ("membership", f"number {membership.number}, {expiry}"),
        ("feed", _newest_entry(feed)),
    ]
    needed = f"{membership.root_threshold} of {len(membership.root_keys)} sign"
    rows += [(f"root key ({needed})", fingerprint(key)) for key in membership.root_keys]
    rows.append(("coordinator", fingerprint(membership.coordinator_key)))
    rows += [(_rounds_of(m), fingerprint(m.public_key)) for m in membership.silos]
    reached = [("the coordinator", membership.coordinator_recipient)]
    reached += [(m.silo, m.recipient) for m in membership.silos]
    return rows + [(f"encrypted for {who}", r) for who, r in reached if r is not None]


def _newest_entry(feed: TrustedFeed) -> str:
    """Its number, which a revocation asks for, and what it is."""
    attempt, number = feed.attempt, feed.head.number
    for erasure in feed.erasures.all:
        if erasure.record.feed_number == number:
            return f"entry {number}, which takes the part of {erasure.record.silo} out"
    if attempt is None:
        return f"entry {number}, which ends an attempt" if number else "no entry yet"
    plan = attempt.plan.record
    what = "which ends" if attempt.abort else "the plan of"
    return f"entry {number}, {what} round {plan.round} attempt {plan.attempt} of {plan.run}"


def _rounds_of(member: Member) -> str:
    named = f"{member.silo}, {member.name}" if member.name else member.silo
    if member.last_round is not None:
        return f"{named} (rounds {member.first_round} to {member.last_round})"
    return f"{named} (from round {member.first_round})" if member.first_round > 1 else named


def write_credentials(path: Path, settings: S3Settings) -> None:
    """Store a credential as TOML, mode 0600."""
    secret = settings.secret_key.get_secret_value()
    text = f"access_key = {toml_string(settings.access_key)}\nsecret_key = {toml_string(secret)}\n"
    write_durably(path, text.encode())


def _sign_first_membership(home: Path, federation: str) -> None:
    """Keys of an init that failed half way are used again."""
    root, coordinator = ensure_key(home / ROOT_KEY), ensure_key(home / COORDINATOR_KEY)
    identity = ensure_identity(home / COORDINATOR_IDENTITY)
    now = SystemClock().now()
    membership = Membership(
        federation=federation,
        issued_at=now,
        number=1,
        previous_digest=None,
        expires_at=now + MEMBERSHIP_VALIDITY,
        root_keys=(root.public_key_hex,),
        root_threshold=1,
        coordinator_key=coordinator.public_key_hex,
        coordinator_recipient=identity.recipient,
        silos=(),
    )
    write_durably(home / MEMBERSHIP_NAME, seal(membership, root).envelope)
