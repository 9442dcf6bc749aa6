"""From a plan and a silo's settings to the job of its ranks: how many steps, and until when."""

from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from data_contracts.protocol.records import RoundPlan
from infra.disk.model_files import model_digest
from silo_agent.collaborators import GlobalAdapter
from silo_agent.config import TrainingSection
from silo_agent.gate.splits import Splits
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.training.engine_spec import PINNED
from silo_agent.training.job import TrainingJob
from silo_agent.training.jobs import LocalJobs
from silo_agent.training.memory_plan import work_of
from silo_agent.training.processes.launch import TrainingInterruptedError
from silo_agent.training.run_files import RunFiles
from silo_agent.training.trainer import DeepSpeedTrainer
from tests.aggregator.federation_samples import START, allowing
from tests.model_folders import write_model_folder
from tests.silo_agent.test_policy import EXACT, POLICY
from tests.silo_agent.test_silo_layout import drawn_adapter, jobs_of
from tests.simulator.fake_clock import FakeClock

LESS = allowing(4)
PLAN = LESS.plan.record
SILO = PLAN.cohort[0]
HOUR = 3600


@dataclass(frozen=True)
class StoppedSilo:
    """One that makes its job and starts no process, because its kill switch is on."""

    home: Path
    digest: str

    def jobs(self, plan: RoundPlan, **training: Any) -> LocalJobs:
        """Its jobs for a plan, with the settings of `[training]`."""
        base = plan.base_model.model_copy(update={"digest": self.digest})
        found = jobs_of(SILO, plan.model_copy(update={"base_model": base}), self.home)
        section = TrainingSection(ranks=1, **training)
        return replace(found, config=found.config.model_copy(update={"training": section}))

    def job(self, plan: RoundPlan, **training: Any) -> TrainingJob:
        """What the trainer would have had its ranks do, an hour before submissions are due."""
        jobs = self.jobs(plan, **training)
        splits = Splits(self.home / "train.jsonl", self.home / "heldout.jsonl")
        clock = FakeClock(START)
        assert jobs.plan.submit_by - clock.now() == timedelta(seconds=HOUR)
        trainer = DeepSpeedTrainer(jobs.config, lambda _: splits, clock, lambda: True)
        report = StatusReporter(None, clock, jobs.config, LESS.plan)
        start = drawn_adapter(self.home / "start.safetensors", plan.layout)
        with pytest.raises(TrainingInterruptedError, match="kill switch"):
            trainer.train(jobs.plan, LESS.verdict(SILO).record, GlobalAdapter(start), report)
        folder = self.home / "work" / plan.run / f"round-{plan.round:04d}"
        return TrainingJob.model_validate_json(RunFiles(folder).job.read_bytes())


@pytest.fixture
def silo(tmp_path: Path) -> StoppedSilo:
    model = write_model_folder(tmp_path / "model")
    digest = model_digest(model, tmp_path / "digests.json")
    text = POLICY.format(**{**EXACT, "digest": digest}).replace("/models/a", str(model))
    (tmp_path / "policy.toml").write_text(text)
    for name in ("train.jsonl", "heldout.jsonl"):
        (tmp_path / name).write_text(name)
    return StoppedSilo(tmp_path, digest)


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 2700),
        ({"time_limit_seconds": 600}, 450),
        ({"time_limit_seconds": HOUR + 1}, 2700),
    ],
)
def test_where_a_plan_lets_silos_do_fewer_steps_the_time_ends_training(
    silo: StoppedSilo, settings: dict[str, int], seconds: int
) -> None:
    job = silo.job(PLAN, **settings)
    assert (job.recipe.local_steps, job.least_steps, job.fewest_steps) == (10, 4, 4)
    assert job.end_by == START + timedelta(seconds=seconds)


def test_where_it_does_not_the_time_ends_what_follows_the_last_step(silo: StoppedSilo) -> None:
    recipe = PLAN.recipe.model_copy(update={"least_steps": None})
    job = silo.job(PLAN.model_copy(update={"recipe": recipe}))
    assert (job.least_steps, job.fewest_steps, job.recipe) == (None, 10, recipe)
    assert job.end_by == START + timedelta(seconds=HOUR / 1.2 - 300)
    assert not job.is_time_over(9, 1.0, job.end_by + timedelta(days=1))
    assert job.is_time_over(10, 1.0, job.end_by)


@pytest.mark.parametrize(
    ("done", "step_seconds", "seconds_left", "is_over"),
    [
        (3, 100.0, -1.0, False),
        (4, 100.0, 100.0, False),
        (4, 100.0, 99.0, True),
        (9, 0.0, 0.0, False),
        (9, 0.5, 0.0, True),
    ],
)
def test_a_step_begins_when_there_is_time_for_one_as_long(
    silo: StoppedSilo, done: int, step_seconds: float, seconds_left: float, is_over: bool
) -> None:
    job = silo.job(PLAN)
    assert job.end_by is not None
    now = job.end_by - timedelta(seconds=seconds_left)
    assert job.is_time_over(done, step_seconds, now) is is_over
    always = job.model_copy(update={"end_by": None})
    assert not always.is_time_over(done, step_seconds, now)


def test_a_silo_that_can_do_half_has_the_job_of_a_plan_with_half(silo: StoppedSilo) -> None:
    """The same fingerprint, so the same work: its result would be taken for that plan's."""
    half = PLAN.recipe.model_copy(update={"local_steps": 5, "least_steps": None})
    ours = silo.job(PLAN, steps_at_most=5)
    theirs = silo.job(PLAN.model_copy(update={"recipe": half}))
    assert ours.recipe == theirs.recipe == half
    assert ours.fingerprint() == theirs.fingerprint() != silo.job(PLAN).fingerprint()


def test_memory_is_planned_for_the_steps_that_are_done(silo: StoppedSilo) -> None:
    found = [
        work_of(PLAN, SILO, TrainingSection(steps_at_most=most), PINNED["cpu"]).round_tokens
        for most in (None, 5, 1)
    ]
    assert found == [10 * 8 * 128, 5 * 8 * 128, 4 * 8 * 128]
