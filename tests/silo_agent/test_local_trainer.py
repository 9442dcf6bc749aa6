"""What a silo states of a candidate: measured once, compared record by record."""

import json
from pathlib import Path

import pytest

from infra.clock import SystemClock
from silo_agent.collaborators import EvaluatedAdapters, GlobalAdapter, HeldoutLosses
from silo_agent.gate.splits import Splits
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.training.job import EvaluationJob
from silo_agent.training.jobs import BASE, HELDOUT, measured
from silo_agent.training.losses import SUMS_NAME, Measured
from silo_agent.training.ranks.evaluate import evaluate
from silo_agent.training.ranks.record_sums import RecordSums, change_error, mean_loss
from silo_agent.training.run_files import ProgressWriter
from silo_agent.training.trainer import DeepSpeedTrainer
from tests.silo_agent.test_silo_layout import drawn_adapter, jobs_of
from tests.silo_agent.tiny_federation import tiny_federation
from tests.tiny_model import write_records

RECORDS = 10
BASE_MODEL = GlobalAdapter(None)


class TinyEvaluation:
    """One silo with held-out records, an adapter, and the same one with a residual."""

    def __init__(self, home: Path, records: int = RECORDS) -> None:
        self.home, self.sample = home, tiny_federation(home)
        self.plan = self.sample.plan.record
        self.jobs = jobs_of(self.plan.cohort[0], self.plan, home)
        self.heldout = write_records(home / "heldout.jsonl", records)
        path = drawn_adapter(home / "adapter.safetensors", self.plan.layout)
        assert self.plan.residual_layout is not None
        residual = drawn_adapter(home / "residual.safetensors", self.plan.residual_layout)
        self.plain, self.with_residual = GlobalAdapter(path), GlobalAdapter(path, residual)

    def evaluate(
        self, starting: GlobalAdapter, candidate: GlobalAdapter, *, stopped: bool = False
    ) -> HeldoutLosses:
        """As the agent does; where the silo is `stopped` no process may start."""
        clock, splits = SystemClock(), Splits(self.heldout, self.heldout)
        trainer = DeepSpeedTrainer(self.jobs.config, lambda _: splits, clock, lambda: stopped)
        report = StatusReporter(None, clock, self.jobs.config, self.sample.plan)
        verdict = self.sample.verdict(self.plan.cohort[0]).record
        adapters = EvaluatedAdapters(starting=starting, candidate=candidate)
        return trainer.evaluate(self.plan, verdict, adapters, report)

    def measured_names(self) -> list[str]:
        """Adapters of the newest evaluation."""
        job = self.jobs.evaluation((BASE,), self.heldout).output_dir / "job.json"
        adapters = EvaluationJob.model_validate_json(job.read_bytes()).adapters
        return [adapter.name for adapter in adapters]

    def afresh(self, *adapters: GlobalAdapter) -> list[RecordSums]:
        """Sums of records, measured without the book."""
        named = tuple(measured(f"number-{n}", adapter) for n, adapter in enumerate(adapters))
        job = self.jobs.evaluation(named, self.heldout, per_record=True)
        result = evaluate(job, ProgressWriter(None))
        return [result.loss(each.name, HELDOUT).records for each in named]


@pytest.fixture
def silo(tmp_path: Path) -> TinyEvaluation:
    return TinyEvaluation(tmp_path)


def test_a_first_round_s_start_is_the_base_model_and_measured_once(silo: TinyEvaluation) -> None:
    found = silo.evaluate(BASE_MODEL, silo.plain)
    assert silo.measured_names() == ["base", "candidate"]
    base, candidate = silo.afresh(BASE_MODEL, silo.plain)
    assert found.base == found.starting == pytest.approx(mean_loss(base), rel=1e-9)
    assert found.candidate == pytest.approx(mean_loss(candidate), rel=1e-9)
    assert (found.records, len(base)) == (RECORDS, RECORDS)
    assert found.change_error == found.base_change_error
    assert found.change_error == pytest.approx(change_error(candidate, base), rel=1e-6)
    assert found.change_error != 0
    assert silo.evaluate(BASE_MODEL, silo.plain, stopped=True) == found, "from the book alone"


def test_the_next_round_measures_its_candidate_alone(silo: TinyEvaluation) -> None:
    silo.evaluate(BASE_MODEL, silo.plain)
    found = silo.evaluate(silo.plain, silo.with_residual)
    assert silo.measured_names() == ["candidate"]
    base, starting, candidate = silo.afresh(BASE_MODEL, silo.plain, silo.with_residual)
    assert found.starting == pytest.approx(mean_loss(starting), rel=1e-9)
    assert found.change_error == pytest.approx(change_error(candidate, starting), rel=1e-6)
    assert found.base_change_error == pytest.approx(change_error(candidate, base), rel=1e-6)
    assert found.change_error != found.base_change_error


def test_a_mean_whose_records_are_not_known_is_measured_again(silo: TinyEvaluation) -> None:
    book = silo.jobs.book(silo.heldout)
    book.put(BASE, Measured(9.0, 3))
    found = silo.evaluate(BASE_MODEL, silo.plain)
    assert silo.measured_names() == ["base", "candidate"]
    assert found.base != 9.0


def test_sums_of_records_in_another_order_are_measured_again(silo: TinyEvaluation) -> None:
    """They agree with their loss, and only what is measured now shows that they are not paired."""
    expected = silo.evaluate(BASE_MODEL, silo.plain)
    path = silo.home / SUMS_NAME
    kept = json.loads(path.read_text())
    kept["tokens"].reverse()
    kept["nats"] = {key: nats[::-1] for key, nats in kept["nats"].items() if key.endswith(":base")}
    path.write_text(json.dumps(kept))
    # Of another job than the first: no result of an earlier process is at hand.
    (silo.jobs.evaluation((BASE,), silo.heldout).output_dir / "result.json").unlink()
    assert silo.evaluate(BASE_MODEL, silo.plain) == expected
    assert silo.measured_names() == ["base"], "after the candidate"


def test_one_record_has_a_loss_and_no_error(tmp_path: Path) -> None:
    found = TinyEvaluation(tmp_path, records=1)
    losses = found.evaluate(BASE_MODEL, found.plain)
    assert (losses.records, losses.change_error, losses.base_change_error) == (1, None, None)
    assert losses.candidate != losses.base
