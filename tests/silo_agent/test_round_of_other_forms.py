"""A whole round in which one silo trains on conversations and the other on plain text.

Gates, ranks, merge and evaluation are real; storage and the coordinator are in memory.
"""

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aggregator.decisions.stage import Stage
from aggregator.feed.reading import read_federation, read_report
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Membership
from infra.disk.durable_files import write_durably
from silo_agent.config import TrainingSection
from silo_agent.gate.contract_gate import ContractGate
from silo_agent.silo import Silo
from silo_agent.training.results import TrainingResult
from silo_agent.training.run_files import RunFiles
from silo_agent.training.trainer import DeepSpeedTrainer
from tests.data_contracts.dataset.contract_samples import write_lines
from tests.data_contracts.dataset.forms.form_samples import CHAT, PLAIN, chat_record, record
from tests.simulator.fake_clock import FakeClock
from tests.simulator.federation import SimulatedFederation
from tests.simulator.silo import SimulatedSilo
from tests.tiny_model import SENTENCES

pytestmark = pytest.mark.long

RECORDS = 40


def words(number: int) -> str:
    """A text of its own for every number, of 14 to 53 words."""
    drawn = random.Random(number).choices(" ".join(SENTENCES).split(), k=14 + number)
    return " ".join(drawn)


ROWS = {
    CHAT: [chat_record(number) for number in range(RECORDS)],
    PLAIN: [record(number, text=words(number)) for number in range(RECORDS)],
}


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


@pytest.fixture
def federation(tiny_model: Path, tmp_path: Path) -> Iterator[SimulatedFederation]:
    """Two silos, founded."""
    # Deadlines of training are by the clock of the machine.
    made = SimulatedFederation(tmp_path, tiny_model, FakeClock(datetime.now(UTC)))
    recipe = made.settings.recipe.model_copy(update={"sequence_length": 64})
    made.settings = made.settings.model_copy(update={"recipe": recipe})
    with ExitStack() as ended:
        for name, contract in (("silo-a", CHAT), ("silo-b", PLAIN)):
            silo = TrainingSilo(**vars(made.add_silo(name)))
            silo.training = TrainingSection(ranks=1, silo_only_baseline=False)
            silo.contract.data = contract.encode()
            write_durably(silo.home / "contract.yaml", silo.contract.data)
            write_durably(silo.home / "keys" / "findings.key", b"k" * 32)
            write_lines(silo.home / "data" / "sets" / "records.jsonl", ROWS[contract])
            made.silos[name] = silo
            made.sign_contract(name)
            ended.callback(silo.end_ranks)
        made.found()
        yield made


def test_silos_of_different_forms_train_and_are_merged(federation: SimulatedFederation) -> None:
    plan = federation.open()
    assert federation.play(plan)[-1] is Stage.REPORTED
    assert [fault for silo in federation.silos.values() for fault in silo.faults] == []
    c = federation.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert report is not None and report.record.candidate_adapter is not None
    for summary in report.record.silos:
        assert summary.outcome == "admitted"
        silo = federation.silos[summary.silo]
        assert isinstance(silo, TrainingSilo)
        result = silo.result()
        assert 0 < result.last_step_loss < result.first_step_loss
        assert summary.losses is not None and summary.losses.candidate > 0
    chat, text = (silo.result().packing for silo in federation.silos.values())  # type: ignore[attr-defined]
    assert chat.continued == 0 and text.continued > 0
    assert chat.refused == text.refused == chat.apart == text.apart == text.truncated == 0
