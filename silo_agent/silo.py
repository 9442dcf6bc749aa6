"""Everything one agent works with, as one value."""

from collections.abc import Callable
from dataclasses import dataclass, field

from infra.clock import Clock
from infra.encryption.identities import Identities
from infra.records.feed_reader import FeedReader
from infra.records.seen import SeenEnvelopes
from infra.storage.object_store import Bucket
from silo_agent.collaborators import DataGate, Trainer
from silo_agent.config import SiloConfig
from silo_agent.federation.global_adapters import GlobalAdapters
from silo_agent.home.disk_rule import PruningTurn
from silo_agent.metrics.metrics import Metrics
from silo_agent.personal.turn import PersonalTurn
from silo_agent.release.release import Release


@dataclass(frozen=True)
class Silo:
    """Everything one agent works with, made once at start; `identities` open what is encrypted for
    this silo, the current one first."""

    config: SiloConfig
    feed: FeedReader
    plans: Bucket
    release: Release
    gate: DataGate
    trainer: Trainer
    clock: Clock
    is_stopped: Callable[[], bool]
    identities: Identities = ()
    metrics: Metrics = field(default_factory=Metrics)
    seen: SeenEnvelopes = field(default_factory=SeenEnvelopes)
    pruning: PruningTurn = field(default_factory=PruningTurn)
    personal: PersonalTurn = field(default_factory=PersonalTurn)

    @property
    def adapters(self) -> GlobalAdapters:
        """The coordinator's adapters on this silo's disk."""
        return GlobalAdapters(self.config.home, self.plans, self.identities)

    @property
    def name(self) -> str:
        """The silo's id."""
        return self.config.silo
