"""One tiny silo for all tests of training, and the launches that several of them look at.

A launch costs many seconds before its first step. So there are four, each after the one before:
jobs of a single rank; a second round in two ranks, whose agent is killed; the same job again, which
goes on from the checkpoint until its deadline passes; and what is left of it, with other jobs and
one that ends the ranks, in two ranks.
"""

import psutil
import pytest

from data_contracts.errors import ConsortiaError
from silo_agent.training.job import TrainingJob
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.results import TrainingResult
from silo_agent.training.run_files import RunFiles
from tests.silo_agent.training.killed_agent import Resumed, orphans_of_a_killed_agent, resume
from tests.silo_agent.training.shared_ranks import (
    KEEP_SECONDS,
    finished,
    train_in_one_rank,
    train_in_shared_ranks,
)
from tests.silo_agent.training.tiny_jobs import (
    Jobs,
    TinySilo,
    absent_module_job,
    bfloat16_jobs,
    cored_twice,
    damaged_job,
    first_round,
    job_processes,
    make_tiny_silo,
    mixing_job,
    recipe_job,
    saving_jobs,
    second_round,
    shortened_job_of_two_ranks,
    shortened_jobs,
    twice,
)


@pytest.fixture(scope="session")
def silo(tmp_path_factory: pytest.TempPathFactory) -> TinySilo:
    return make_tiny_silo(tmp_path_factory.mktemp("silo"))


@pytest.fixture(scope="session")
def one_rank(silo: TinySilo) -> Jobs:
    """Jobs that a single rank has done, and one that it could not, by name."""
    jobs = (
        first_round(silo, "one-rank", ranks=1),
        recipe_job(silo, "one-rank-b", "b", zero_stage=2, ranks=1),
        recipe_job(silo, "one-rank-a", "a", zero_stage=1, ranks=1),
        *cored_twice(silo, 1, ranks=1),
        first_round(silo, "one-rank-in-threes", ranks=1, micro_batch=3),
        recipe_job(silo, "one-rank-b-in-threes", "b", zero_stage=2, ranks=1, micro_batch=3),
        first_round(silo, "one-rank-zero-3", ranks=1, zero_stage=3),
        *shortened_jobs(silo),
        absent_module_job(silo),
    )
    train_in_one_rank(jobs, silo.root)
    return {job.output_dir.name: job for job in jobs}


@pytest.fixture(scope="session")
def second_job(silo: TinySilo, one_rank: Jobs) -> TrainingJob:
    return second_round(silo, RunFiles(one_rank["one-rank"].output_dir).adapter)


@pytest.fixture(scope="session")
def orphans(silo: TinySilo, second_job: TrainingJob) -> list[int]:
    """Process ids that an agent left when it was killed at step 3 of `second_job`."""
    return orphans_of_a_killed_agent(silo, second_job)


@pytest.fixture(scope="session")
def resumed(second_job: TrainingJob, orphans: list[int]) -> Resumed:
    """The job of the killed agent, gone on with until a deadline passes in its baseline."""
    return resume(second_job, orphans)


@pytest.fixture(scope="session")
def two_ranks(last_launch: tuple[Jobs, ConsortiaError]) -> Jobs:
    """Jobs that two ranks have done, by name; of `second_job` only the baseline was left."""
    return last_launch[0]


@pytest.fixture(scope="session")
def unforeseen(last_launch: tuple[Jobs, ConsortiaError]) -> ConsortiaError:
    """What ended the ranks after that: the weights of one more job's model are damaged."""
    return last_launch[1]


@pytest.fixture(scope="session")
def last_launch(
    silo: TinySilo, second_job: TrainingJob, resumed: Resumed
) -> tuple[Jobs, ConsortiaError]:
    start = RunFiles(second_job.output_dir).adapter
    jobs = (
        *(job for stage in (1, 2) for job in twice(silo, stage, start)),
        second_job,
        *twice(silo, 3, start),
        recipe_job(silo, "recipe", "b", zero_stage=3, ranks=2, with_baseline=True),
        *cored_twice(silo, 2, ranks=2),
        recipe_job(silo, "cored-zero-3", "core", zero_stage=3, ranks=2),
        first_round(silo, "zero-3-in-pairs", zero_stage=3, micro_batch=2),
        mixing_job(silo),
        shortened_job_of_two_ranks(silo),
        *saving_jobs(silo),
        *bfloat16_jobs(silo),
    )
    ranks = ResidentRanks(silo.root, KEEP_SECONDS)
    error = train_in_shared_ranks((*jobs, damaged_job(silo)), ranks)
    assert error is not None
    assert job_processes(psutil.Process()) == [], "which has ended the ranks"
    return {job.output_dir.name: job for job in jobs}, error


@pytest.fixture(scope="session")
def zero_2_job(two_ranks: Jobs) -> TrainingJob:
    return two_ranks["zero-2"]


@pytest.fixture(scope="session")
def zero_2(zero_2_job: TrainingJob) -> TrainingResult:
    return finished(zero_2_job)
