"""What the coordinator works with, made once from the federation's home directory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from aggregator.settings import FederationSettings, load_settings
from data_contracts.bucket_layout import inbox_bucket, ledger_bucket, plans_bucket
from data_contracts.envelope import Verified
from data_contracts.records import Abort, Membership, RoundPlan
from data_contracts.trust_anchor import load_trust_anchor
from infra.clock import Clock, SystemClock
from infra.object_store import Bucket
from infra.s3_bucket import S3Bucket
from infra.signing_keys import SigningKey, load_key
from infra.storage_config import s3_settings

COORDINATOR_KEY = Path("keys/coordinator-key.pem")
MEMBERSHIP_NAME = Path("membership.json")
CONTRACTS_DIRECTORY = Path("contracts")


@dataclass
class SeenFeed:
    """Memberships and feed entries that this process has verified. Both only grow, so a poll reads
    on from here instead of from the beginning."""

    memberships: list[Verified[Membership]] = field(default_factory=list)
    entries: list[Verified[RoundPlan | Abort]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True)
class Coordinator:
    """Keys, buckets and clock of the coordinator. Inboxes are only ever read."""

    settings: FederationSettings
    key: SigningKey
    pinned: Verified[Membership]
    plans: Bucket
    ledger: Bucket
    inbox: Callable[[str], Bucket]
    clock: Clock
    seen: SeenFeed = field(default_factory=SeenFeed)

    @property
    def workspace(self) -> Path:
        """Local directory for spooled adapters; can be deleted between rounds."""
        return self.settings.home / "workspace"

    @property
    def published(self) -> Path:
        """Where the published adapter lies in PEFT's layout."""
        return self.settings.home / "published"

    @property
    def published_residual(self) -> Path:
        """Where the residual of the rule `residual` lies, a second adapter in PEFT's layout."""
        return self.settings.home / "published-residual"

    @property
    def reports(self) -> Path:
        """Where the round reports lie."""
        return self.settings.home / "reports"


def load_coordinator(home: Path) -> Coordinator:
    """Everything from `federation.toml` and the files beside it."""
    settings = load_settings(home)
    storage = s3_settings(settings.storage, settings.home)
    return Coordinator(
        settings=settings,
        key=load_key(settings.path(COORDINATOR_KEY)),
        pinned=load_trust_anchor(settings.path(MEMBERSHIP_NAME)),
        plans=S3Bucket(storage, plans_bucket(settings.federation)),
        ledger=S3Bucket(storage, ledger_bucket(settings.federation)),
        inbox=lambda silo: S3Bucket(storage, inbox_bucket(settings.federation, silo)),
        clock=SystemClock(),
    )
