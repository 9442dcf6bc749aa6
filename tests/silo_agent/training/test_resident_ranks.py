"""Ranks that stay with an agent: what they keep, when they end, and what their death costs."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.processes.process_tree import executes, kill_and_wait
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet, TrainingJob
from silo_agent.training.processes.launch import run_evaluation, run_training
from silo_agent.training.processes.machine_launch import GroupShape
from silo_agent.training.processes.rank_memory import rank_memory
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.ranks.evaluate import evaluate
from silo_agent.training.results import Progress
from silo_agent.training.run_files import ProgressWriter
from tests.silo_agent.training.tiny_jobs import TinySilo, job_processes
from tests.simulator.fake_clock import START, FakeClock
from tests.tiny_model import make_tiny_model

pytestmark = pytest.mark.stack

KEEP_SECONDS = 600
LEAST_OF_A_RANK = 200_000_000
"""What PyTorch and DeepSpeed hold at least."""


class Residents:
    """Ranks that are kept by a clock of their own, and a small job for them."""

    def __init__(self, silo: TinySilo, directory: Path) -> None:
        self.silo, self.directory, self.clock = silo, directory, FakeClock(START)
        self.rooms: list[GroupShape] = []
        self.ranks = ResidentRanks(
            directory / "ranks", KEEP_SECONDS, self.clock, make_room=self.rooms.append
        )
        self.jobs = 0
        self.said: list[Progress] = []

    def job(self, **changes: object) -> TrainingJob:
        """One of a single rank that was not done before."""
        self.jobs += 1
        recipe = self.silo.job("any").recipe.model_copy(update={"local_steps": 2})
        output = self.directory / f"job-{self.jobs}"
        return self.silo.job("any", ranks=1, recipe=recipe, output_dir=output, **changes)

    def train(self, **changes: object) -> bytes:
        """The adapter of one job in the ranks."""
        job = self.job(**changes)
        trained = run_training(job, ranks=self.ranks, on_progress=self.said.append)
        return trained.adapter.read_bytes()


@pytest.fixture(scope="module")
def residents(silo: TinySilo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Residents]:
    residents = Residents(silo, tmp_path_factory.mktemp("residents"))
    yield residents
    residents.ranks.end()


def pids() -> list[int]:
    """The launcher and its ranks."""
    return [process.pid for process in job_processes(psutil.Process())]


def test_training_evaluation_and_another_adapter_meet_the_same_processes(
    residents: Residents, tmp_path: Path
) -> None:
    first = residents.train()
    started = pids()
    assert len(started) == 2
    launcher, rank = map(psutil.Process, started)
    assert launcher.num_threads() == 2, "one works and one watches, since the fork"
    assert os.getsid(rank.pid) == rank.pid != os.getsid(launcher.pid)
    (idle,) = rank_memory(psutil.Process().pid)
    held = [said.memory_bytes or 0 for said in residents.said if said.steps]
    assert len(held) == 2
    assert min(*held, idle) > LEAST_OF_A_RANK, "and the launcher is none"
    assert {said.gpu_memory_bytes for said in residents.said} == {None}
    assert len(residents.rooms) == 1
    layout = residents.silo.job("any").layout
    adapter = residents.directory / "job-1" / "adapter.safetensors"
    named = (
        EvaluatedAdapter(name="local", path=adapter),
        EvaluatedAdapter(name="base", path=None),
    )
    job = EvaluationJob(
        model_dir=residents.silo.model_dir,
        layout=layout,
        adapters=named,
        heldout=(HeldoutSet(name="heldout", records=residents.silo.heldout_records),),
        sequence_length=96,
        heldout_sequences=8,
        output_dir=tmp_path / "evaluation",
        threads=1,
        per_sequence=True,
        per_record=True,
        engine=residents.job().engine,
    )
    found = run_evaluation(job, ranks=residents.ranks)
    alone = evaluate(job, ProgressWriter(None))
    for mine, other in zip(found.losses, alone.losses, strict=True):
        assert (mine.adapter, mine.tokens) == (other.adapter, other.tokens)
        assert mine.nats == pytest.approx(other.nats, abs=1e-6)
        for sums, others in ((mine.records, other.records), (mine.sequences, other.sequences)):
            assert [tokens for _, tokens in sums] == [tokens for _, tokens in others]
            assert [nats for nats, _ in sums] == pytest.approx([nats for nats, _ in others])
    assert found.loss("local", "heldout").nats != found.loss("base", "heldout").nats
    assert residents.train() == first, "an evaluation leaves nothing behind"
    assert pids() == started


@pytest.mark.long
def test_another_model_under_the_same_path_is_loaded_anew(
    residents: Residents, tmp_path: Path
) -> None:
    model = make_tiny_model(tmp_path / "model")
    before = residents.train(model_dir=model)
    make_tiny_model(model, seed=1)
    assert residents.train(model_dir=model) != before


@pytest.mark.long
def test_ranks_that_die_while_they_wait_cost_a_start_and_nothing_else(
    residents: Residents,
) -> None:
    expected = residents.train()
    dead = job_processes(psutil.Process())
    kill_and_wait(dead[1:])
    psutil.wait_procs(dead, timeout=30)
    assert residents.train() == expected
    assert len(pids()) == 2
    assert not set(pids()) & {process.pid for process in dead}


def test_idle_ranks_end_after_their_time(residents: Residents) -> None:
    residents.train()
    running = job_processes(psutil.Process())
    residents.clock.sleep(KEEP_SECONDS - 1)
    residents.ranks.give_back()
    assert all(map(executes, running))
    residents.clock.sleep(1)
    residents.ranks.give_back()
    assert not any(map(executes, running))
    assert pids() == []
