"""A simulated silo, real from its data to its ranks; storage and coordinator are in memory."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from data_contracts.dataset.contract import load_contract
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Membership
from infra.disk.durable_files import write_durably
from silo_agent.config import TrainingSection
from silo_agent.gate.contract_gate import ContractGate
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.silo import Silo
from silo_agent.training.results import TrainingResult
from silo_agent.training.run_files import RunFiles
from silo_agent.training.trainer import DeepSpeedTrainer
from tests.data_contracts.dataset.contract_samples import write_lines
from tests.simulator.federation import SimulatedFederation
from tests.simulator.silo import SimulatedSilo


@dataclass
class TrainingSilo(SimulatedSilo):
    """A simulated silo whose gate looks at records, and whose ranks train on them."""

    trainers: list[DeepSpeedTrainer] = field(default_factory=list)

    def agent(self, federation: str, pinned: Verified[Membership]) -> Silo:
        """With one trainer for all agents, as for an agent that is not restarted."""
        agent = super().agent(federation, pinned)
        gate = ContractGate(agent.config, self.clock)
        if not self.trainers:
            trainer = DeepSpeedTrainer(agent.config, gate.splits, self.clock, lambda: False)
            self.trainers.append(trainer)
        return replace(agent, gate=gate, trainer=self.trainers[0])

    def result(self) -> TrainingResult:
        """What its training of the first round said."""
        (directory,) = self.home.glob("work/*/round-0001")
        answer = json.loads(RunFiles(directory).result.read_bytes())
        return TrainingResult.model_validate(answer["result"])

    def end_ranks(self) -> None:
        """As its agent does when it ends."""
        for trainer in self.trainers:
            trainer.close()


def add_training_silo(
    federation: SimulatedFederation,
    name: str,
    contract: str,
    rows: Sequence[dict[str, Any]],
    file: str = "records.jsonl",
) -> TrainingSilo:
    """A silo with one rank, a contract and its records; its ranks have to be ended."""
    silo = TrainingSilo(**vars(federation.add_silo(name)))
    silo.training = TrainingSection(ranks=1, silo_only_baseline=False)
    silo.contract.data = contract.encode()
    write_durably(silo.home / "contract.yaml", silo.contract.data)
    terms = ContractTerms.of(load_contract(silo.home / "contract.yaml"))
    silo.contract.form, silo.contract.classes = terms.form, terms.classes
    silo.contract.privacy = terms.privacy
    write_durably(silo.home / "keys" / "findings.key", b"k" * 32)
    write_lines(silo.home / "data" / "sets" / file, rows)
    federation.silos[name] = silo
    federation.sign_contract(name)
    return silo
