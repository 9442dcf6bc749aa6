"""What the coordinator works with, made once from the federation's home directory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aggregator.arrivals import Arrivals
from aggregator.settings.federation import FederationSettings, load_settings
from data_contracts.protocol.bucket_layout import (
    PLAN_DIGITS,
    inbox_bucket,
    ledger_bucket,
    plans_bucket,
)
from data_contracts.protocol.trust_anchor import load_trust_anchor
from infra.clock import Clock, SystemClock
from infra.disk.file_digests import FileDigests
from infra.encryption.identities import Identities, load_identities
from infra.records.feed_reader import FeedReader
from infra.records.seen import SeenEnvelopes, SeenStatuses
from infra.signing_keys import SigningKey, load_key
from infra.storage.config import s3_settings
from infra.storage.object_store import Bucket
from infra.storage.s3_bucket import S3Bucket

COORDINATOR_KEY = Path("keys/coordinator-key.pem")
COORDINATOR_IDENTITY = Path("keys/coordinator-identity.txt")
ATTEMPT_KEYS = Path("keys/attempts")
DESTROYED_KEYS = Path("keys/destroyed")
"""Below the one an identity for each attempt whose plan asks for encrypted adapters, below the
other a signed record of each that was destroyed."""
MEMBERSHIP_NAME = Path("membership.json")
FEED_DIRECTORY = Path("feed")
CONTRACTS_DIRECTORY = Path("contracts")
REPORTS_DIRECTORY = Path("reports")
RUNNER_LOCK = "deployment-runner.lock"
CANDIDATES, CONTRIBUTIONS = "candidates", "contributions"
"""Directories of the workspace, besides the spool."""


@dataclass(frozen=True)
class Coordinator:
    """Keys, buckets and clock of the coordinator. Inboxes are read and locked, never written.

    `keys` are its own, the current one and earlier ones: a key that was rotated finishes the
    attempt that it opened. `identities` open what is encrypted for it, the current one first.
    """

    settings: FederationSettings
    keys: tuple[SigningKey, ...]
    feed: FeedReader
    plans: Bucket
    ledger: Bucket
    inbox: Callable[[str], Bucket]
    clock: Clock
    identities: Identities = ()
    seen: SeenEnvelopes = field(default_factory=SeenEnvelopes)
    statuses: SeenStatuses = field(default_factory=SeenStatuses)
    arrivals: Arrivals = field(default_factory=Arrivals)
    spooled: FileDigests = field(default_factory=lambda: FileDigests(None))

    @property
    def workspace(self) -> Path:
        """Where adapters are spooled; `aggregator.upkeep.disk_pruning` says what goes when."""
        return self.settings.home / "workspace"

    def contributions_to(self, plan_digest: str) -> Path:
        """Where what is measured of a plan's contributions lies on its way."""
        return self.workspace / CONTRIBUTIONS / plan_digest[:PLAN_DIGITS]

    @property
    def model_digests(self) -> Path:
        """Digests of the base model's files, so that they are read once."""
        return self.settings.home / "model-digests.json"

    @property
    def published(self) -> Path:
        """The published adapter, as a model user takes it; see `aggregator.publishing.publish`."""
        return self.settings.home / "published"

    @property
    def reports(self) -> Path:
        """Where the round reports lie."""
        return self.settings.home / REPORTS_DIRECTORY


def coordinator_keys(settings: FederationSettings) -> tuple[SigningKey, ...]:
    """All that the coordinator has had and still keeps; a membership says which one counts."""
    first = settings.path(COORDINATOR_KEY)
    paths = sorted(first.parent.glob(f"{first.stem}*{first.suffix}"))
    return tuple(load_key(path) for path in paths)


def load_coordinator(home: Path) -> Coordinator:
    """Everything from `federation.toml` and the files beside it."""
    settings = load_settings(home)
    storage = s3_settings(settings.storage, settings.home)
    plans = S3Bucket(storage, plans_bucket(settings.federation))
    pinned = load_trust_anchor(settings.path(MEMBERSHIP_NAME))
    return Coordinator(
        settings=settings,
        keys=coordinator_keys(settings),
        feed=FeedReader(settings.home / FEED_DIRECTORY, plans, pinned, finishes_claims=True),
        plans=plans,
        ledger=S3Bucket(storage, ledger_bucket(settings.federation)),
        inbox=lambda silo: S3Bucket(storage, inbox_bucket(settings.federation, silo)),
        clock=SystemClock(),
        identities=load_identities(settings.path(COORDINATOR_IDENTITY)),
    )
