"""Creating a federation and adding silos: keys, memberships, buckets, what is handed over.

In order: keys exist before they are named, buckets and credentials before a membership names
their silo, and every membership is signed by the root key, which belongs offline afterwards.
"""

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from aggregator.coordinator import (
    CONTRACTS_DIRECTORY,
    COORDINATOR_KEY,
    MEMBERSHIP_NAME,
    load_coordinator,
)
from aggregator.settings import SETTINGS_NAME, load_settings
from data_contracts.bucket_layout import (
    inbox_bucket,
    ledger_bucket,
    membership_slot,
    plans_bucket,
)
from data_contracts.dataset.contract import parse_contract
from data_contracts.dataset.contract.agreement import agreement_path
from data_contracts.envelope import Verified, fingerprint, seal
from data_contracts.errors import FederationOperatorError
from data_contracts.records import Membership
from data_contracts.records.membership import Member
from data_contracts.trust_anchor import load_trust_anchor
from flows.templates import FEDERATION_TEMPLATE
from infra.clock import SystemClock
from infra.durable_files import write_durably
from infra.local_stack import RunningStorage, add_federation
from infra.local_stack import add_silo as add_silo_to_storage
from infra.record_store import read_membership_chain
from infra.s3_client import S3Settings
from infra.signing_keys import ensure_key, load_key
from infra.single_writer import claim_record
from infra.storage_probe import probe_storage, require_promises
from infra.toml_text import toml_string

ROOT_KEY = Path("keys/root-key.pem")
STORAGE_CREDENTIALS = Path("keys/storage-credentials.toml")
HAND_OVER = Path("hand-over")
MEMBERSHIP_VALIDITY = timedelta(days=365)


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


def init_federation(home: Path, terms: FederationTerms, storage: RunningStorage | None) -> None:
    """Write settings and keys, create the buckets on the embedded storage, sign membership 1.

    Without `storage` the endpoint is somebody else's: the buckets and the coordinator's
    credential must exist, and `aws_policy` says with which rights.
    """
    settings_path = home / SETTINGS_NAME
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
    write_durably(settings_path, settings_text(terms).encode())
    try:
        publish_membership(home)
    except BaseException:
        # Without its membership in storage there is no federation yet: init can be run again.
        settings_path.unlink()
        raise


def settings_text(terms: FederationTerms) -> str:
    """The settings file of a new federation."""
    return FEDERATION_TEMPLATE.format(
        **{name: toml_string(value) for name, value in vars(terms).items()}
    )


def publish_membership(home: Path) -> Verified[Membership]:
    """Put the newest local membership into storage; the storage is probed first."""
    c = load_coordinator(home)
    require_promises(probe_storage(c.plans, role="coordinator"))
    membership = load_trust_anchor(home / MEMBERSHIP_NAME)
    return claim_record(
        c.plans,
        membership_slot(membership.record.number),
        membership,
        membership.record.root_keys,
    )


def add_silo(
    home: Path, silo: str, public_key: str, contract: Path, storage: RunningStorage | None
) -> Path:
    """Create the silo's bucket and credential, sign a membership with it, file its contract.

    Returns the directory with what the silo operator gets: the membership and the credential.
    """
    c = load_coordinator(home)
    hand_over = home / HAND_OVER / silo
    contract_bytes = contract.read_bytes()
    parse_contract(contract_bytes, str(contract))
    if storage is not None:
        write_credentials(
            hand_over / "storage-credentials.toml",
            add_silo_to_storage(storage, c.settings.federation, silo),
        )
    current = read_membership_chain(c.plans, c.pinned)[-1]
    if current.record.key_of(silo) != public_key:
        membership = _successor(home, current, silo, public_key)
        claim_record(
            c.plans,
            membership_slot(membership.record.number),
            membership,
            current.record.root_keys,
        )
        write_durably(home / MEMBERSHIP_NAME, membership.envelope)
    filed = home / CONTRACTS_DIRECTORY / f"{silo}.yaml"
    write_durably(filed, contract_bytes)
    if agreement_path(contract).exists() and contract != filed:
        write_durably(agreement_path(filed), agreement_path(contract).read_bytes())
    write_durably(hand_over / "membership.json", (home / MEMBERSHIP_NAME).read_bytes())
    return hand_over


def describe(home: Path) -> list[tuple[str, str]]:
    """What to compare out of band: fingerprints of the coordinator and of every silo."""
    c = load_coordinator(home)
    membership = read_membership_chain(c.plans, c.pinned)[-1].record
    rows = [
        ("federation", membership.federation),
        ("membership", f"number {membership.number}, expires {membership.expires_at:%Y-%m-%d}"),
    ]
    rows += [("root key", fingerprint(key)) for key in membership.root_keys]
    rows.append(("coordinator", fingerprint(membership.coordinator_key)))
    rows += [(m.silo, fingerprint(m.public_key)) for m in membership.silos]
    return rows


def aws_policy(home: Path, silo: str | None = None) -> str:
    """IAM policy (JSON) for the coordinator, or for one silo, on AWS S3 or a store that has IAM."""
    federation = load_settings(home).federation
    silos = sorted(path.stem for path in (home / CONTRACTS_DIRECTORY).glob("*.yaml"))
    plans, ledger = plans_bucket(federation), ledger_bucket(federation)
    inboxes = [inbox_bucket(federation, name) for name in silos]
    if silo is None:
        statements = [*_allow([plans, ledger], writes=True), *_allow(inboxes, writes=False)]
    else:
        inbox = inbox_bucket(federation, silo)
        statements = [*_allow([plans], writes=False), *_allow([inbox], writes=True)]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, indent=2)


def write_credentials(path: Path, settings: S3Settings) -> None:
    """Store a credential as TOML, mode 0600."""
    secret = settings.secret_key.get_secret_value()
    text = f'access_key = "{settings.access_key}"\nsecret_key = "{secret}"\n'
    write_durably(path, text.encode())


def _allow(buckets: list[str], *, writes: bool) -> list[dict[str, object]]:
    if not buckets:
        return []
    objects = ["s3:GetObject", *(["s3:PutObject"] if writes else [])]
    return [
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [f"arn:aws:s3:::{bucket}" for bucket in buckets],
        },
        {
            "Effect": "Allow",
            "Action": objects,
            "Resource": [f"arn:aws:s3:::{bucket}/*" for bucket in buckets],
        },
    ]


def _sign_first_membership(home: Path, federation: str) -> None:
    """Keys of an init that failed half way are used again."""
    root, coordinator = ensure_key(home / ROOT_KEY), ensure_key(home / COORDINATOR_KEY)
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
        silos=(),
    )
    write_durably(home / MEMBERSHIP_NAME, seal(membership, root).envelope)


def _successor(
    home: Path, current: Verified[Membership], silo: str, public_key: str
) -> Verified[Membership]:
    """The next membership: the current one with this silo added, or its key replaced."""
    now = SystemClock().now()
    others = tuple(m for m in current.record.silos if m.silo != silo)
    added = Member(silo=silo, public_key=public_key)
    fields = {
        "number": current.record.number + 1,
        "previous_digest": current.digest,
        "issued_at": now,
        "expires_at": now + MEMBERSHIP_VALIDITY,
        "silos": tuple(sorted((*others, added), key=lambda member: member.silo)),
    }
    membership = Membership.model_validate({**dict(current.record), **fields})
    return seal(membership, load_key(home / ROOT_KEY))
