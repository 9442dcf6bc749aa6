"""Everything that the readiness of a silo is judged by, read once, faults included.

The feed is read into a folder of its own: what the agent has seen of it is the agent's to write.
"""

import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from data_contracts.dataset.contract import DataContract, load_contract
from data_contracts.dataset.contract.agreement import Parties
from data_contracts.errors import ConsortiaError, SiloOperatorError
from data_contracts.protocol.bucket_layout import plans_bucket
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.known_erasures import KnownErasures
from data_contracts.protocol.records import Membership, RoundPlan
from data_contracts.protocol.trust_anchor import load_trust_anchor
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.encryption.identities import Identity, load_identities, recipients_of
from infra.records.feed_reader import FeedReader
from infra.signing_keys import SigningKey, load_key
from infra.storage.config import read_credentials, s3_settings
from infra.storage.probe import probe_inbox, require_promises
from infra.storage.s3_bucket import S3Bucket
from infra.storage.s3_client import S3Settings
from silo_agent.assembly import FEED, own_inbox
from silo_agent.config import SiloConfig
from silo_agent.policy.policy_file import PolicyFile, read_policy
from silo_agent.readiness.checklist import Look, tried


@dataclass(frozen=True)
class Facts:
    """What is there; `promises` and `feed` are None where storage was not to be asked."""

    config: SiloConfig
    now: datetime
    key: Look[SigningKey]
    policy: PolicyFile
    pinned: Look[Verified[Membership]]
    credential: Look[S3Settings]
    promises: Look[str] | None
    feed: Look[TrustedFeed] | None
    contract: Look[DataContract]
    identities: Look[tuple[Identity, ...]] = ()

    @property
    def membership(self) -> Membership | None:
        """The newest membership that could be read."""
        if isinstance(self.feed, TrustedFeed):
            return self.feed.membership.record
        return self.pinned.record if isinstance(self.pinned, Verified) else None

    @property
    def recipients(self) -> frozenset[str]:
        """Those whose identities are here and can be read."""
        held = self.identities
        return frozenset() if isinstance(held, ConsortiaError) else recipients_of(held)

    @property
    def plan(self) -> RoundPlan | None:
        """The newest plan, unless it was aborted."""
        attempt = self.feed.attempt if isinstance(self.feed, TrustedFeed) else None
        return attempt.plan.record if attempt is not None and attempt.abort is None else None

    @property
    def erasures(self) -> KnownErasures:
        """What was taken out of the federation's adapters; nothing where storage was not asked."""
        return self.feed.erasures if isinstance(self.feed, TrustedFeed) else KnownErasures()

    @property
    def parties(self) -> Parties | None:
        """Who signs the contract: as the feed has it, else as the membership at hand has it."""
        membership, silo = self.membership, self.config.silo
        if membership is None:
            return None
        if isinstance(self.feed, TrustedFeed):
            own, theirs = self.feed.silo_keys(silo), self.feed.contract_keys()
        else:
            key = membership.key_of(silo)
            own = frozenset({key}) if key is not None else frozenset()
            theirs = frozenset({membership.coordinator_key})
        return Parties(membership.federation, silo, own, theirs)


def _credential(config: SiloConfig) -> S3Settings:
    """As the file is now; what a process has read before it would go on using."""
    if config.storage.credential_source == "file":
        read_credentials(config.path(config.storage.credentials))
    return s3_settings(config.storage, config.home)


def look(config: SiloConfig, now: datetime, *, storage: bool) -> Facts:
    """Read what there is; only with `storage` is anything outside this machine asked."""
    credential = tried(lambda: _credential(config))
    pinned = tried(lambda: load_trust_anchor(config.path(config.trust.membership)))
    reached = storage and isinstance(credential, S3Settings)
    return Facts(
        config=config,
        now=now,
        key=tried(lambda: load_key(config.path(config.keys.signing))),
        policy=read_policy(config.path(config.policy)),
        pinned=pinned,
        credential=credential,
        promises=tried(lambda: _promises(config, now)) if reached else None,
        feed=tried(lambda: _feed(config, pinned))
        if reached and isinstance(pinned, Verified)
        else None,
        contract=tried(lambda: load_contract(config.path(config.data.contract))),
        identities=tried(lambda: load_identities(config.path(config.keys.identity))),
    )


def _promises(config: SiloConfig, now: datetime) -> str:
    require_promises(probe_inbox(own_inbox(config), now, role=config.silo))
    return config.storage.endpoint_url


def _feed(config: SiloConfig, pinned: Verified[Membership]) -> TrustedFeed:
    plans = S3Bucket(s3_settings(config.storage, config.home), plans_bucket(config.federation))
    with tempfile.TemporaryDirectory(prefix="feed-") as folder:
        seen = Path(folder) / "seen"
        if (config.home / FEED).exists():
            shutil.copytree(config.home / FEED, seen)
        return FeedReader(seen, plans, pinned, owner_error=SiloOperatorError).refresh()
