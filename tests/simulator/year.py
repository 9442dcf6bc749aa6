"""A federation that lives for a year: its processes, its members and its agents' polls.

Coordinator, agents, records, signatures, gate, merge and marks are the product's own, and so are
schedule, membership commands and the wait for a storage that is away. Simulated are the buckets,
the clock, the records that a silo holds, and training. A process lives until it is restarted or
killed, as it would. Its nights are in `year_nights`, what an event does is in `year_events`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from aggregator.coordinator import (
    CONTRACTS_DIRECTORY,
    COORDINATOR_KEY,
    Coordinator,
    coordinator_keys,
)
from aggregator.planning.membership_changes import Change
from aggregator.settings.federation import AdapterSection
from data_contracts.dataset.contract.agreement import agreement_path
from data_contracts.errors import ConsortiaError, SiloOperatorError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Membership, RoundPlan, RoundReport
from flows.federation.membership_signing import Published, change_membership
from infra.disk.durable_files import write_durably
from infra.signing_keys import SigningKey, create_key
from silo_agent.agent import poll_once
from silo_agent.silo import Silo
from silo_agent.steps.own_attempt import Step
from tests.simulator.federation import FEDERATION, SimulatedFederation
from tests.simulator.memory_bucket import InMemoryBucket
from tests.simulator.silo import Behaviour, SimulatedGate, SimulatedSilo
from tests.simulator.year_calendar import FOUNDERS
from tests.simulator.year_parts import (
    COORDINATOR,
    KilledError,
    SiloClock,
    Weather,
    yearlong,
)

QUORUM = 3


@dataclass(frozen=True)
class Night:
    """What became of one night: outcome and rule of its last attempt, or the fault that ended it.

    `expects` is what the year knew would come: `published`, `aborted`, `expired`, `away`, or `late`
    for a round whose deadlines went by while storage was away.
    """

    number: int
    started_at: datetime
    expects: str
    outcome: str = ""
    rule: str = ""
    fault: str = ""


@dataclass
class YearFederation(SimulatedFederation):
    """Twelve silos and a coordinator that live through a year; see the module.

    `attendance` decides for each night which silos' machines are on.
    """

    quorum: int = QUORUM
    attendance: Callable[[int], frozenset[str]] = lambda night: frozenset(FOUNDERS)
    agents: dict[str, Silo] = field(default_factory=dict)
    offline: dict[str, int] = field(default_factory=dict)
    """Until which night a silo's machine is off."""
    nights: list[Night] = field(default_factory=list)
    starts: list[datetime] = field(default_factory=list)
    polls: list[tuple[int, int]] = field(default_factory=list)
    """Night, and requests of one poll."""
    expects: str = "published"
    reports: list[tuple[Verified[RoundPlan], Verified[RoundReport]]] = field(default_factory=list)
    rewound: set[str] = field(default_factory=set)
    """Whose marks were put back on purpose since they were last looked at."""

    def __post_init__(self) -> None:
        self.weather = Weather(self.clock)
        super().__post_init__()
        small = AdapterSection(rank=2, alpha=4, target_modules=("q_proj",))
        self.settings = self.settings.model_copy(update={"adapter": small})
        self.key = create_key(self.settings.path(COORDINATOR_KEY))
        self.root_paths = [self.directory / "keys" / "root.pem"]
        self.night = -1
        self._coordinator: Coordinator | None = None

    def bucket(self, name: str) -> InMemoryBucket:
        """As before; every request goes through the weather."""
        bucket = super().bucket(name)
        bucket.before = self.weather
        return bucket

    def add_silo(self, name: str, behaviour: Behaviour = Behaviour.HONEST) -> SimulatedSilo:
        """A silo with a clock of its own."""
        silo = super().add_silo(name, behaviour)
        silo.clock = SiloClock(self.clock)
        return silo

    @property
    def newest(self) -> Membership:
        """The newest membership that was published."""
        return self.memberships[-1].record

    def process(self) -> Coordinator:
        """The coordinator's running process."""
        if self._coordinator is None:
            self._coordinator = self.coordinator()
        return self._coordinator

    def coordinator(self, key: SigningKey | None = None) -> Coordinator:
        """A fresh coordinator, with the keys that lie in its home."""
        self.earlier_keys = coordinator_keys(self.settings)
        return super().coordinator(key)

    def restart(self, party: str) -> None:
        """What a process had in memory is gone."""
        if party == COORDINATOR:
            self._coordinator = None
        self.agents.pop(party, None)

    def publish(self, change: Change) -> None:
        """Sign and publish the next membership, as the commands do."""
        self.took(change_membership(self.process(), change, root_keys=self.root_paths))

    def took(self, result: object) -> None:
        """Remember a membership that a command published."""
        if not isinstance(result, Published):
            raise AssertionError(f"a draft that lacks signatures: {result}")
        if result.changed:
            self.memberships.append(result.membership)
        wanted = self.newest.coordinator_key
        keys = coordinator_keys(self.settings)
        self.key = next(key for key in keys if key.public_key_hex == wanted)
        self.restart(COORDINATOR)

    def file_contract_again(self, silo: str) -> None:
        """Contract and agreement as both sides signed them, for a coordinator that lost them."""
        contract = self.silos[silo].contract
        path = self.settings.path(CONTRACTS_DIRECTORY) / f"{silo}.yaml"
        write_durably(path, contract.data)
        write_durably(agreement_path(path), contract.agreed)

    # Silos

    def is_on(self, name: str) -> bool:
        """Whether the machine of a silo is on in this night."""
        away = self.offline.get(name, -1) >= self.night
        return not away and name in self.attendance(self.night)

    def poll_all(self) -> bool:
        """One poll of every agent whose machine is on; whether any of them did something."""
        results = [self.poll(name) for name in self.silos if self.is_on(name)]
        return any(step not in (None, Step.WAITING, Step.FINISHED) for step in results)

    def poll(self, name: str) -> Step | None:
        """As the agent's loop does: a fault is told, and one for the operator ends the agent."""
        silo = self.silos[name]
        if len(silo.faults) > 0 and silo.faults[-1].startswith(ENDED):
            return None
        self.weather.requests[name] = 0
        try:
            with self.weather.asked_by(name):
                step = poll_once(self.agent(name))
            self.polls.append((self.night, self.weather.requests[name]))
            return step
        except KilledError:
            self.restart(name)
        except ConsortiaError as error:
            ended = isinstance(error, SiloOperatorError)
            silo.faults.append(f"{ENDED if ended else ''}{error}")
        return None

    def restart_if_ended(self, name: str) -> None:
        """A service manager starts an agent again that has ended, once a day."""
        faults = self.silos[name].faults
        if faults and faults[-1].startswith(ENDED):
            self.restart(name)
        faults.clear()

    def agent(self, name: str) -> Silo:
        """The agent's running process."""
        silo = self.silos[name]
        if name not in self.agents:
            self.agents[name] = yearlong(silo.agent(FEDERATION, self.pinned))
        agent = self.agents[name]
        if isinstance(agent.gate, SimulatedGate):
            agent.gate.expires_at = self.clock.now() + timedelta(days=1)
        return agent


ENDED = "the agent has ended: "
