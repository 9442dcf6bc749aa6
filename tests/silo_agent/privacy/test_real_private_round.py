"""A whole private round with real gates, ranks and evaluation: subjects charged and released."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from aggregator.decisions.stage import Stage
from aggregator.feed.reading import read_federation, read_report
from aggregator.settings.privacy import PrivacySection
from silo_agent.privacy.ledger import PRIVACY, SECRETS, PrivacyLedger
from silo_agent.training.run_files import RunFiles
from tests.data_contracts.dataset.contract_samples import CONTRACT, sample_records
from tests.silo_agent.training_silo import TrainingSilo, add_training_silo
from tests.simulator.fake_clock import FakeClock
from tests.simulator.federation import SimulatedFederation

pytestmark = pytest.mark.long

BUDGET = """\
  - property: fl.privacy
    value: {{population: of-{silo}, unit: subject, epsilon: "20", delta: "0.001"}}
"""
TERMS = PrivacySection(
    unit="subject",
    clipping_norm=Decimal("0.5"),
    noise_multiplier=Decimal("1"),
    records_per_unit=2,
)


def rows() -> list[dict[str, Any]]:
    """Two records of each of 30 subjects."""
    return [
        record | {"subject": f"subject-{n // 2}"} for n, record in enumerate(sample_records(60))
    ]


@pytest.fixture
def federation(tiny_model: Path, tmp_path: Path) -> Iterator[SimulatedFederation]:
    """Two silos, founded."""
    # Deadlines of training are by the clock of the machine.
    made = SimulatedFederation(tmp_path, tiny_model, FakeClock(datetime.now(UTC)), privacy=TERMS)
    recipe = made.settings.recipe.model_copy(update={"sequence_length": 64})
    made.settings = made.settings.model_copy(update={"recipe": recipe})
    with ExitStack() as ended:
        for name in ("silo-a", "silo-b"):
            contract = CONTRACT + BUDGET.format(silo=name)
            silo = add_training_silo(made, name, contract, rows())
            ended.callback(silo.end_ranks)
        made.found()
        yield made


def test_subjects_are_charged_drawn_and_released(federation: SimulatedFederation) -> None:
    plan = federation.open()
    assert federation.play(plan)[-1] is Stage.REPORTED
    assert [fault for silo in federation.silos.values() for fault in silo.faults] == []
    c = federation.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert report is not None and report.record.candidate_adapter is not None
    for summary in report.record.silos:
        assert (summary.rule, summary.outcome) == (None, "admitted")
        silo = federation.silos[summary.silo]
        assert isinstance(silo, TrainingSilo)
        lines = PrivacyLedger(silo.home).read()
        ((line, charged),) = lines.charges()
        assert summary.privacy is not None
        assert summary.privacy.ledger_digest == line.digest
        # Of 30 subjects one in five is held out, by its name.
        assert charged.units is not None and 15 <= charged.units <= 30
        assert lines.begun(line.number) is not None
        closed = lines.closed(line.number)
        assert closed is not None and closed.submission is not None
        assert list((silo.home / PRIVACY / SECRETS).glob("*")) == []
        job = json.loads(RunFiles(next(silo.home.glob("work/*/round-0001"))).job.read_bytes())
        assert job["private"]["sampling_rate"] == str(charged.sampling_rate)
        assert job["private"]["units"] is not None
        assert (job["zero_stage"], job["silo_only"]["enabled"]) == (1, False)
