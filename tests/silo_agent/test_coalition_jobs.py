"""Coalitions' adapters go through the evaluation that measures candidates, each under its place."""

from pathlib import Path

import pytest

from data_contracts.protocol.records import RoundPlan
from infra.clock import SystemClock
from silo_agent.collaborators import GlobalAdapter
from silo_agent.gate.splits import Splits
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet
from silo_agent.training.jobs import HELDOUT, LocalJobs, coalition_adapters
from silo_agent.training.processes.launch import run_evaluation
from silo_agent.training.trainer import DeepSpeedTrainer
from tests.aggregator.federation_samples import Federation
from tests.silo_agent.test_silo_layout import drawn_adapter, jobs_of
from tests.silo_agent.tiny_federation import tiny_federation
from tests.tiny_model import write_records


@pytest.fixture
def sample(tmp_path: Path) -> Federation:
    """A plan for the tiny model, merged with a residual, whose policy lies in the home."""
    return tiny_federation(tmp_path)


@pytest.fixture
def plan(sample: Federation) -> RoundPlan:
    return sample.plan.record


@pytest.fixture
def adapters(tmp_path: Path, plan: RoundPlan) -> list[GlobalAdapter]:
    """With a residual, without one, and the base model."""
    assert plan.residual_layout is not None
    first = drawn_adapter(tmp_path / "first.safetensors", plan.layout)
    residual = drawn_adapter(tmp_path / "residual.safetensors", plan.residual_layout)
    return [GlobalAdapter(first, residual), GlobalAdapter(first), GlobalAdapter(None)]


@pytest.fixture
def jobs(plan: RoundPlan, tmp_path: Path) -> LocalJobs:
    return jobs_of(plan.cohort[0], plan, tmp_path)


def test_the_job_measures_each_coalition_in_the_run_s_layout(
    plan: RoundPlan, jobs: LocalJobs, adapters: list[GlobalAdapter], tmp_path: Path
) -> None:
    heldout = write_records(tmp_path / "heldout.jsonl", 4)
    job = jobs.evaluation(coalition_adapters(adapters), heldout)
    first = adapters[0]
    assert job.adapters == (
        EvaluatedAdapter(name="coalition-0", path=first.path, residual=first.residual),
        EvaluatedAdapter(name="coalition-1", path=first.path),
        EvaluatedAdapter(name="coalition-2", path=None),
    )
    assert (job.layout, job.residual_layout) == (plan.layout, plan.residual_layout)
    assert job.heldout == (HeldoutSet(name=HELDOUT, records=heldout),)
    assert job.model_dir == tmp_path / "model"
    assert job.sequence_length == plan.recipe.sequence_length
    assert job.heldout_sequences == jobs.config.training.heldout_sequences


def test_losses_are_those_of_the_evaluation_and_are_measured_once(
    sample: Federation,
    plan: RoundPlan,
    jobs: LocalJobs,
    adapters: list[GlobalAdapter],
    tmp_path: Path,
) -> None:
    heldout = write_records(tmp_path / "heldout.jsonl", 7)
    clock = SystemClock()
    trainer = DeepSpeedTrainer(
        jobs.config, lambda _: Splits(heldout, heldout), clock, lambda: False
    )
    report = StatusReporter(None, clock, jobs.config, sample.plan)
    verdict = sample.verdict(plan.cohort[0]).record
    found = trainer.measure(plan, verdict, adapters, report)
    job = EvaluationJob(
        model_dir=tmp_path / "model",
        layout=plan.layout,
        residual_layout=plan.residual_layout,
        adapters=coalition_adapters(adapters),
        heldout=(HeldoutSet(name=HELDOUT, records=heldout),),
        sequence_length=96,
        heldout_sequences=8,
        output_dir=tmp_path / "elsewhere",
    )
    expected = run_evaluation(job)
    losses = [expected.loss(f"coalition-{place}", HELDOUT) for place in range(3)]
    assert found.losses == pytest.approx([entry.loss for entry in losses], abs=1e-6)
    assert len({round(loss, 6) for loss in found.losses}) == 3
    assert {entry.tokens for entry in losses} == {found.tokens}
    stopped = DeepSpeedTrainer(jobs.config, trainer.splits, clock, lambda: True)
    backwards = stopped.measure(plan, verdict, adapters[::-1], report)
    assert backwards.losses == found.losses[::-1], "from the loss book, without a process"
