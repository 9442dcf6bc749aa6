"""Everything one agent works with, as one value."""

from collections.abc import Callable
from dataclasses import dataclass

from data_contracts.envelope import Verified
from data_contracts.records import Membership
from infra.clock import Clock
from infra.object_store import Bucket
from silo_agent.collaborators import DataGate, Trainer
from silo_agent.config import SiloConfig
from silo_agent.policy import PolicyFile, read_policy
from silo_agent.release import Release


@dataclass(frozen=True)
class Silo:
    """Everything one agent works with, made once at start."""

    config: SiloConfig
    pinned: Verified[Membership]
    plans: Bucket
    release: Release
    gate: DataGate
    trainer: Trainer
    clock: Clock
    is_stopped: Callable[[], bool]

    @property
    def name(self) -> str:
        """The silo's id."""
        return self.config.silo

    def policy(self) -> PolicyFile:
        """The policy as it is now; read for every plan, so an edit counts at once."""
        return read_policy(self.config.path(self.config.policy))
