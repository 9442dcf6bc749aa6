"""Real processes that are killed while the trainer of an agent waits for them."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from infra.clock import SystemClock
from silo_agent.config import AgentSection, TrainingSection
from silo_agent.gate.splits import Splits
from silo_agent.restarts import ProcessDiedError
from silo_agent.training.results import TrainingResult
from silo_agent.training.run_files import RunFiles
from silo_agent.training.trainer import DeepSpeedTrainer
from tests.silo_agent.test_local_trainer import BASE_MODEL, TinyEvaluation
from tests.silo_agent.training.tiny_jobs import job_processes
from tests.tiny_model import write_records

pytestmark = pytest.mark.stack
STEPS = 40
Due = Callable[["KilledSilo"], list[psutil.Process]]


class KilledSilo(TinyEvaluation):
    """One silo that trains. Of the processes that are `due`, `deaths` are killed, one per launch.

    They are killed where the trainer asks for the kill switch, which is never on.
    """

    def __init__(self, home: Path, due: Due, deaths: int, ranks: int = 2) -> None:
        super().__init__(home)
        recipe = self.plan.recipe.model_copy(update={"local_steps": STEPS})
        later = SystemClock().now() + timedelta(hours=1)
        self.plan = self.plan.model_copy(update={"recipe": recipe, "submit_by": later})
        self.files = RunFiles(home / "work" / self.plan.run / f"round-{self.plan.round:04d}")
        self.train_records = write_records(home / "train.jsonl", 30)
        self.due, self.deaths, self.killed = due, deaths, list[int]()
        changes = {
            "training": TrainingSection(
                ranks=ranks, checkpoint_every_steps=1, silo_only_baseline=False
            ),
            "agent": AgentSection(max_restarts=1),
        }
        self.config = self.jobs.config.model_copy(update=changes)
        splits, clock = Splits(self.train_records, self.heldout), SystemClock()
        self.training = DeepSpeedTrainer(self.config, lambda _: splits, clock, self._kill_one)

    def train(self) -> TrainingResult:
        return self.training.train(self.plan, self.verdict, BASE_MODEL, self.report)

    def _kill_one(self) -> bool:
        due = [process for process in self.due(self) if process.pid not in self.killed]
        if due and len(self.killed) < self.deaths:
            due[0].kill()
            self.killed.append(due[0].pid)
        return False


def last_rank(silo: KilledSilo) -> list[psutil.Process]:
    ranks = silo.config.training.ranks
    return sorted(job_processes(psutil.Process()), key=lambda each: each.pid)[ranks : ranks + 1]


def last_rank_after_checkpoints(silo: KilledSilo) -> list[psutil.Process]:
    """Once three steps are done, the first two have left a checkpoint."""
    progress = silo.files.progress
    lines = progress.read_text().splitlines() if progress.exists() else []
    steps = [json.loads(line)["step"] for line in lines]
    return last_rank(silo) if max(steps, default=0) >= 3 else []


def test_a_killed_rank_costs_the_steps_since_the_last_checkpoint(tmp_path: Path) -> None:
    silo = KilledSilo(tmp_path, last_rank_after_checkpoints, deaths=1, ranks=1)
    trained = silo.train()
    assert len(silo.killed) == 1
    assert trained.steps == STEPS
    result = json.loads(silo.files.result.read_bytes())["result"]
    assert result["resumed_from_step"] >= 2
    assert len(job_processes(psutil.Process())) == 2, "the next job finds them"
    silo.training.close()
    assert job_processes(psutil.Process()) == []


@pytest.mark.long
def test_ranks_that_are_killed_every_time_are_a_death_and_not_a_fault_to_mend(
    tmp_path: Path,
) -> None:
    silo = KilledSilo(tmp_path, last_rank, deaths=9)
    with pytest.raises(ProcessDiedError, match=r"rank \d: .*SIGKILL.*more memory"):
        silo.train()
    assert len(silo.killed) == 2, "once, and once more"
    assert job_processes(psutil.Process()) == []
