"""Everything one agent works with, as one value."""

from collections.abc import Callable
from dataclasses import dataclass, field

from data_contracts.dataset.contract.agreement import Parties
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from infra.clock import Clock
from infra.records.feed_reader import FeedReader
from infra.records.record_store import SeenEnvelopes
from infra.storage.object_store import Bucket
from silo_agent.collaborators import DataGate, Trainer
from silo_agent.config import SiloConfig
from silo_agent.gate.contract_terms import ContractTerms
from silo_agent.home.disk_rule import PruningTurn
from silo_agent.policy.policy_file import PolicyFile, read_policy
from silo_agent.release.release import Release
from silo_agent.release.status_reporter import StatusReporter


@dataclass(frozen=True)
class Silo:
    """Everything one agent works with, made once at start."""

    config: SiloConfig
    feed: FeedReader
    plans: Bucket
    release: Release
    gate: DataGate
    trainer: Trainer
    clock: Clock
    is_stopped: Callable[[], bool]
    seen: SeenEnvelopes = field(default_factory=SeenEnvelopes)
    pruning: PruningTurn = field(default_factory=PruningTurn)

    @property
    def name(self) -> str:
        """The silo's id."""
        return self.config.silo

    def policy(self) -> PolicyFile:
        """The policy as it is now; read for every plan, so an edit counts at once."""
        return read_policy(self.config.path(self.config.policy))

    def terms(self, parties: Parties) -> ContractTerms | None:
        """The terms of the data contract as they are at this moment."""
        return self.gate.terms(parties)

    def reporter(self, plan: Verified[RoundPlan], terms: ContractTerms | None) -> StatusReporter:
        """Progress for this machine, and for the operator where the contract lets it out."""
        leaves = terms is not None and "status" in terms.egress
        return StatusReporter(self.release if leaves else None, self.clock, self.config, plan)
