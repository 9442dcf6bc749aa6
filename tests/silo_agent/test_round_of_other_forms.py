"""A whole round in which one silo trains on conversations and the other on plain text.

Gates, ranks, merge and evaluation are real; storage and the coordinator are in memory.
"""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aggregator.decisions.stage import Stage
from aggregator.feed.reading import read_federation, read_report
from tests.data_contracts.dataset.forms.form_samples import CHAT, PLAIN, chat_record, record
from tests.silo_agent.training.shared_ranks import told
from tests.silo_agent.training_silo import TrainingSilo, add_training_silo
from tests.simulator.fake_clock import FakeClock
from tests.simulator.federation import SimulatedFederation
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


@pytest.fixture
def federation(tiny_model: Path, tmp_path: Path) -> Iterator[SimulatedFederation]:
    """Two silos, founded."""
    # Deadlines of training are by the clock of the machine.
    made = SimulatedFederation(tmp_path, tiny_model, FakeClock(datetime.now(UTC)))
    recipe = made.settings.recipe.model_copy(update={"sequence_length": 64})
    made.settings = made.settings.model_copy(update={"recipe": recipe})
    with ExitStack() as ended:
        for name, contract in (("silo-a", CHAT), ("silo-b", PLAIN)):
            silo = add_training_silo(made, name, contract, ROWS[contract])
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
        assert 0 < told(result.last_step_loss) < told(result.first_step_loss)
        assert summary.losses is not None and summary.losses.candidate > 0
    chat, text = (silo.result().packing for silo in federation.silos.values())  # type: ignore[attr-defined]
    assert chat.continued == 0 and text.continued > 0
    assert chat.refused == text.refused == chat.apart == text.apart == text.truncated == 0
