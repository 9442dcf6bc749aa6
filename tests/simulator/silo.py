"""Simulated silos: the real agent code around a simulated trainer and data gate.

The agent, its policy, release and feed are the product's own; only what would need GPUs and
records is simulated. A silo can be told to misbehave.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from data_contracts.adapter_format import lora_a_name, lora_b_name
from data_contracts.artifact import digest_of_bytes
from data_contracts.envelope import Verified
from data_contracts.errors import ConsortiaError
from data_contracts.records import Membership, RoundPlan, Verdict
from data_contracts.records.verdict import LicenceCount, RuleOutcome
from infra.object_store import Bucket
from infra.signing_keys import SigningKey
from infra.storage_config import StorageSection
from silo_agent.agent import Silo, Step, poll_once
from silo_agent.collaborators import EvaluatedAdapters, HeldoutLosses, LocalTraining
from silo_agent.config import AgentSection, SiloConfig
from silo_agent.data_gate import GateOutcome
from silo_agent.kill_switch import KillSwitch
from silo_agent.policy import ContractTerms
from silo_agent.release import Release
from silo_agent.status_reporter import StatusReporter
from tests.simulator.fake_clock import FakeClock

PURPOSE = "testing"
BASE_LOSS = 3.0


class Behaviour(Enum):
    """How a simulated silo acts."""

    HONEST = "honest"
    ABSENT = "absent"
    FAILING_CONTRACT = "its data contract fails"
    NOT_FINITE = "submits NaN"
    HUGE = "submits finite but absurd values"
    ZERO_DELTA = "submits the adapter it started from"
    BOASTING = "claims a billion tokens"
    SILENT_EVALUATOR = "never evaluates"
    UNHAPPY = "finds the candidate worse"


@dataclass
class SimulatedTrainer:
    """Draws an adapter from the silo's name and the round; satisfies `Trainer`."""

    silo: str
    directory: Path
    behaviour: Behaviour
    trainings: int = 0

    def train(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        starting_adapter: Path | None,
        report: StatusReporter,
    ) -> LocalTraining:
        """A random adapter of the plan's layout; deterministic per silo and round."""
        self.trainings += 1
        report.show("training", step=1, steps=plan.recipe.local_steps, tokens_per_second=100.0)
        path = self.directory / f"{plan.run}-{plan.round}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(self._tensors(plan), path)
        boasting = self.behaviour is Behaviour.BOASTING
        return LocalTraining(
            adapter=path,
            tokens=10**9 if boasting else plan.recipe.tokens_per_round,
            steps=plan.recipe.local_steps,
            first_step_loss=BASE_LOSS,
            last_step_loss=BASE_LOSS - 0.5,
            seconds=1.0,
        )

    def evaluate(
        self,
        plan: RoundPlan,
        verdict: Verdict,
        adapters: EvaluatedAdapters,
        report: StatusReporter,
    ) -> HeldoutLosses:
        """Losses that fall with the rounds, unless this silo is unhappy."""
        starting = BASE_LOSS - 0.1 * (plan.round - 1)
        step = 0.5 if self.behaviour is Behaviour.UNHAPPY else -0.1
        return HeldoutLosses(
            tokens=100, base=BASE_LOSS, starting=starting, candidate=starting + step, silo_only=None
        )

    def _tensors(self, plan: RoundPlan) -> dict[str, np.ndarray]:
        seed = int(digest_of_bytes(f"{self.silo}:{plan.round}".encode())[:8], 16)
        rng = np.random.default_rng(seed)
        tensors = {}
        for target in plan.adapter.targets:
            a = rng.standard_normal((plan.adapter.rank, target.in_features)).astype(np.float32)
            b = rng.standard_normal((target.out_features, plan.adapter.rank)).astype(np.float32)
            if self.behaviour is Behaviour.NOT_FINITE:
                b[0, 0] = np.nan
            if self.behaviour is Behaviour.HUGE:
                b[0, 0] = 1e30
            if self.behaviour is Behaviour.ZERO_DELTA:
                b[:] = 0
            tensors[lora_a_name(target.module)] = a
            tensors[lora_b_name(target.module)] = b
        return tensors


@dataclass
class SimulatedGate:
    """A data gate with a fixed answer; satisfies `DataGate`."""

    contract: bytes
    passes: bool
    now: Callable[[], datetime]
    purposes: tuple[str, ...] = (PURPOSE,)

    def terms(self) -> ContractTerms | None:
        """The contract's digest and purposes."""
        return ContractTerms(digest_of_bytes(self.contract), self.purposes)

    def check(self) -> GateOutcome:
        """One rule, which holds or not."""
        outcome = RuleOutcome(
            rule="licence.allowed",
            type="expectation",
            success=self.passes,
            severity="critical",
            element_count=100,
            unexpected_count=0 if self.passes else 20,
        )
        return GateOutcome(
            passed=self.passes,
            outcomes=(outcome,),
            licences=(LicenceCount(licence="MIT", records=100),),
            findings_digest=digest_of_bytes(b"findings"),
            contract_digest=digest_of_bytes(self.contract),
            expires_at=self.now() + timedelta(days=1),
            operator_notes=(),
            train_records=80,
            heldout_records=20,
        )


@dataclass
class SimulatedSilo:
    """One silo with its home directory, inbox and behaviour."""

    name: str
    home: Path
    key: SigningKey
    plans: Bucket
    inbox: Bucket
    clock: FakeClock
    contract: bytes
    behaviour: Behaviour = Behaviour.HONEST
    faults: list[str] = field(default_factory=list)

    def agent(self, federation: str, pinned: Verified[Membership]) -> Silo:
        """A fresh agent on this home directory, as after a restart."""
        switch = KillSwitch(self.home)
        return Silo(
            config=SiloConfig(
                silo=self.name,
                federation=federation,
                storage=StorageSection(endpoint_url="http://127.0.0.1:1"),
                agent=AgentSection(poll_seconds=5, status_seconds=10),
                home=self.home,
            ),
            pinned=pinned,
            plans=self.plans,
            release=Release(self.home / "outbox", self.inbox, self.key, self.clock, switch.is_on),
            gate=SimulatedGate(
                self.contract,
                self.behaviour is not Behaviour.FAILING_CONTRACT,
                self.clock.now,
            ),
            trainer=SimulatedTrainer(self.name, self.home / "work", self.behaviour),
            clock=self.clock,
            is_stopped=switch.is_on,
        )

    def act(self, federation: str, pinned: Verified[Membership]) -> Step | None:
        """One step of a freshly started agent: nothing it needs may live in memory only."""
        if self.behaviour is Behaviour.ABSENT:
            return None
        agent = self.agent(federation, pinned)
        if self.behaviour is Behaviour.SILENT_EVALUATOR and self._has_submitted():
            return None
        try:
            return poll_once(agent)
        except ConsortiaError as error:
            self.faults.append(str(error))
            return None

    def _has_submitted(self) -> bool:
        return any("/submission/" in info.key for info in self.inbox.list_keys("rounds/"))
