"""Private jobs in real DeepSpeed ranks: one launch that does several, one that is stopped in the
middle of the first of them, and one that goes on from what it left."""

import shutil
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch

from data_contracts.adapters.adapter_format import check_adapter
from data_contracts.adapters.starting_adapter import tensors_of
from data_contracts.errors import ConsortiaError, SiloOperatorError
from silo_agent.training.job import TrainingJob
from silo_agent.training.private_part import PrivatePart
from silo_agent.training.processes.launch import TrainingInterruptedError, run_training
from silo_agent.training.processes.resident_ranks import ResidentRanks
from silo_agent.training.ranks.lora_model import trained_parameters
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.token_logits import answer_nll
from silo_agent.training.results import Progress, TrainingResult
from silo_agent.training.run_files import ProgressReader, RunFiles
from tests.silo_agent.training.plain_torch import CPU, plain_model
from tests.silo_agent.training.private.record_samples import drawn_secret
from tests.silo_agent.training.shared_ranks import KEEP_SECONDS, finished, train_in_shared_ranks
from tests.silo_agent.training.tiny_jobs import (
    Jobs,
    TinySilo,
    make_tiny_silo,
    shard_of,
    tiny_recipe,
)

pytestmark = [pytest.mark.stack, pytest.mark.long]

STEPS, RECORDS, KILLED_AT = 6, 30, 3
RECIPE = tiny_recipe(STEPS)
OPEN = Decimal(1_000_000)


def private_job(silo: TinySilo, name: str, *, job: dict[str, Any], **changes: Any) -> TrainingJob:
    """With noise and a norm that bites, ten records a step on average, unless told otherwise."""
    fields: dict[str, Any] = {
        "unit": "record",
        "clipping_norm": Decimal("0.5"),
        "noise_multiplier": Decimal("0.8"),
        "sampling_rate": Decimal("0.35"),
        "expected_units": 10,
        "secret": silo.root / "secret",
    }
    private = PrivatePart(**{**fields, **changes})
    options: dict[str, Any] = {
        "recipe": RECIPE,
        "zero_stage": 1,
        "measure_starting": False,
        "measure_local": False,
        "private": private,
    }
    return silo.job(name, **{**options, **job})


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> TinySilo:
    silo = make_tiny_silo(tmp_path_factory.mktemp("private silo"))
    drawn_secret(silo.root / "secret")
    drawn_secret(silo.root / "another", byte=9)
    units = np.arange(RECORDS, dtype="<u4") // 4
    units.tofile(silo.root / "train.units")
    return silo


@pytest.fixture(scope="module")
def done(silo: TinySilo) -> tuple[Jobs, ConsortiaError]:
    """Jobs that two ranks did one after the other, on one engine where they can; and what ended the
    ranks then, because the secret of one more job is not there."""
    exact = {"clipping_norm": OPEN, "noise_multiplier": Decimal(0), "sampling_rate": Decimal(1)}
    subjects = {"unit": "subject", "units": silo.root / "train.units", "records_per_unit": 3}
    made = (
        private_job(silo, "steady", job={"checkpoint_every_steps": 2, "micro_batch": 2}),
        private_job(silo, "other-secret", job={}, secret=silo.root / "another"),
        private_job(silo, "exact", job={}, **exact, expected_units=RECORDS),
        private_job(silo, "subjects", job={"micro_batch": 3}, **subjects, expected_units=3),
        private_job(silo, "empty", job={}, sampling_rate=Decimal("0.000000001")),
        private_job(silo, "half", job={"precision": "bfloat16", "gradient_checkpointing": True}),
    )
    without = private_job(silo, "no-secret", job={}, secret=silo.root / "none")
    error = train_in_shared_ranks((*made, without), ResidentRanks(silo.root, KEEP_SECONDS))
    assert error is not None
    return {job.output_dir.name: job for job in made}, error


@pytest.fixture(scope="module")
def jobs(done: tuple[Jobs, ConsortiaError]) -> Jobs:
    return done[0]


@pytest.fixture(scope="module")
def resumed(jobs: Jobs) -> tuple[bytes, TrainingResult, bytes]:
    """The adapter of a job, and of the very same job that was stopped and gone on with."""
    job, seen = jobs["steady"], list[Progress]()
    whole = finished(job).adapter.read_bytes()
    shutil.rmtree(job.output_dir)
    with pytest.raises(TrainingInterruptedError):
        run_training(
            job,
            on_progress=seen.append,
            should_stop=lambda: any(each.step >= KILLED_AT for each in seen),
        )
    again = run_training(job)
    return whole, again, again.adapter.read_bytes()


def tensors(job: TrainingJob) -> dict[str, np.ndarray]:
    """Of the adapter of a job that was done."""
    return tensors_of(check_adapter(finished(job).adapter, job.layout))


def largest_b(adapter: dict[str, np.ndarray]) -> list[float]:
    """Of every module: B is zero at the start."""
    return [float(np.abs(array).max()) for name, array in adapter.items() if ".lora_B." in name]


def trained_on_all_records(job: TrainingJob) -> dict[str, np.ndarray]:
    """By a plain loop: the mean over all records of the mean loss of each, every step."""
    model = plain_model(job)
    shard = shard_of(job.model_dir, job.train_records)
    trained, recipe = trained_parameters(model), job.recipe
    rate = float(recipe.learning_rate)
    optimizer = torch.optim.AdamW(
        trained.values(), lr=rate, weight_decay=float(recipe.weight_decay)
    )
    for step in range(recipe.local_steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, (step + 1) / (recipe.warmup_steps + 1))
        optimizer.zero_grad()
        for place in range(len(shard)):
            sequence = PackedSequence()
            sequence.append(*shard.cut(place, recipe.sequence_length))
            loss = answer_nll(model, sequence, CPU) / sequence.answer_tokens / RECORDS
            torch.autograd.backward(loss)
        optimizer.step()
    return {name: parameter.detach().numpy() for name, parameter in trained.items()}


def test_all_records_without_noise_train_what_a_plain_loop_over_them_trains(jobs: Jobs) -> None:
    expected, found = trained_on_all_records(jobs["exact"]), tensors(jobs["exact"])
    assert found.keys() == expected.keys()
    assert max(float(np.abs(found[name] - expected[name]).max()) for name in found) < 1e-5
    assert min(largest_b(found)) > 1e-3


@pytest.mark.parametrize("name", ["empty", "exact", "half", "other-secret", "steady", "subjects"])
def test_weights_have_moved_in_every_module(name: str, jobs: Jobs) -> None:
    """What is lost elsewhere without a word: a loss that looks as always, and B still zero."""
    assert min(largest_b(tensors(jobs[name]))) > 1e-3


def test_a_run_that_was_killed_ends_with_the_same_bytes(
    resumed: tuple[bytes, TrainingResult, bytes],
) -> None:
    whole, again, after = resumed
    assert 0 < again.resumed_from_step < STEPS
    assert again.steps == STEPS
    assert after == whole


def test_another_secret_is_another_draw_with_other_noise(
    jobs: Jobs, resumed: tuple[bytes, TrainingResult, bytes]
) -> None:
    assert resumed[0] != finished(jobs["other-secret"]).adapter.read_bytes()


def test_steps_that_draw_nothing_are_steps_all_the_same(jobs: Jobs) -> None:
    result = finished(jobs["empty"])
    assert (result.steps, result.tokens) == (STEPS, 0)
    said = RunFiles(jobs["empty"].output_dir).progress.read_text()
    assert said.count('"loss":null') >= STEPS


@pytest.mark.parametrize("name", ["exact", "half", "subjects"])
def test_a_result_tells_nothing_of_the_losses_on_the_records(name: str, jobs: Jobs) -> None:
    result = finished(jobs[name])
    assert result.tokens > 0
    assert (result.first_step_loss, result.last_step_loss) == (None, None)
    assert (result.local, result.silo_only) == (None, None)


@pytest.mark.parametrize("name", ["exact", "subjects"])
def test_what_is_shown_of_steps_tells_no_tokens(name: str, jobs: Jobs) -> None:
    """The status, which leaves, has how many are trained by second."""
    shown = ProgressReader(RunFiles(jobs[name].output_dir).progress).new()
    assert [each.step for each in shown if each.steps] == [*range(1, STEPS + 1)]
    assert all(each.tokens_per_second is None for each in shown)
    assert any(each.loss is not None for each in shown), "which stays in the silo"


def test_the_secret_is_in_no_file_of_the_work(jobs: Jobs, silo: TinySilo) -> None:
    secret = (silo.root / "secret").read_bytes()
    files = [p for p in jobs["exact"].output_dir.rglob("*") if p.is_file()]
    assert files
    for path in files:
        held = path.read_bytes()
        assert secret not in held and secret.hex().encode() not in held


def test_a_missing_secret_is_said_to_the_silo_s_operator(
    done: tuple[Jobs, ConsortiaError],
) -> None:
    assert isinstance(done[1], SiloOperatorError)
    assert "32 random bytes" in done[1].expected
