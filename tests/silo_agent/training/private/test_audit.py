"""What can be guessed from the steps of a private training, against what is claimed.

Who guesses sees the most that the accounting allows: the weights before every step, and the noisy
sum that each step gives the optimizer, but not what was drawn. A canary is guessed to be in by how
far the sums point along its own gradient.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant

from silo_agent.training.job import TrainingJob
from silo_agent.training.private_part import PrivatePart
from silo_agent.training.ranks.lora_model import trained_parameters
from silo_agent.training.ranks.packed_sequence import PackedSequence
from silo_agent.training.ranks.packing import PackingRule
from silo_agent.training.ranks.private.private_steps import PrivateSteps
from silo_agent.training.ranks.private.record_gradients import RecordGradients
from silo_agent.training.ranks.private.record_places import RecordPlaces
from tests.silo_agent.training.plain_torch import CPU
from tests.silo_agent.training.private.one_run_audit import (
    lower_bound,
    p_value,
    right_guesses,
    write_canaries,
)
from tests.silo_agent.training.private.plain_engine import PlainEngine, only_rank
from tests.silo_agent.training.private.record_samples import drawn_secret
from tests.silo_agent.training.tiny_jobs import shard_of, tiny_recipe
from tests.tiny_model import make_tiny_model, tiny_adapter_layout

pytestmark = pytest.mark.long

CANARIES, GUESSES, STEPS, RATE = 128, 80, 12, 0.5
EPSILON, DELTA, MULTIPLIER = 2.0, 1e-5, 4.2


@dataclass(frozen=True)
class Audited:
    """A job whose training records are the canaries that a coin chose."""

    job: TrainingJob
    is_in: Any
    canaries: list[PackedSequence]
    train: Any


class WatchedEngine(PlainEngine):
    """Scores canaries by what it is given: the sum of a step along the gradient of each, less what
    all of them have in common."""

    def __init__(self, job: TrainingJob, canaries: list[PackedSequence]) -> None:
        super().__init__(job)
        self.scores = torch.zeros(len(canaries))
        self._canaries = canaries

    def step_along(self, index: int, gradients: Mapping[str, torch.Tensor]) -> None:
        """The gradients of the canaries are those before the step."""
        own = self._own_gradients()
        own = own / own.norm(dim=1, keepdim=True)
        own = own - own.mean(0)
        given = torch.cat([gradients[name].flatten() for name in trained_parameters(self.model)])
        self.scores += own @ given / own.norm(dim=1)
        super().step_along(index, gradients)

    def _own_gradients(self) -> torch.Tensor:
        model, _ = self.in_training()
        hooks = RecordGradients(model, trained_parameters(model), CPU)
        found = []
        for start in range(0, len(self._canaries), 16):
            some = self._canaries[start : start + 16]
            compute = partial(self.family.batch_loss, model, some, CPU)
            _, gradients = hooks.of(RecordPlaces(some, CPU), compute)
            rows = [gradients[name].flatten(1) for name in trained_parameters(model)]
            found.append(torch.cat(rows, 1))
        hooks.end()
        return torch.cat(found)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    root = tmp_path_factory.mktemp("audited")
    lines = write_canaries(root / "canaries.jsonl", CANARIES)
    is_in = np.random.default_rng(1).random(CANARIES) < 0.5
    chosen = [line for line, own in zip(lines, is_in, strict=True) if own]
    (root / "train.jsonl").write_text("\n".join(chosen) + "\n")
    model = make_tiny_model(root / "model")
    job = TrainingJob(
        model_dir=model,
        layout=tiny_adapter_layout(rank=8),
        recipe=tiny_recipe(STEPS),
        round=1,
        train_records=root / "train.jsonl",
        heldout_records=root / "canaries.jsonl",
        output_dir=root / "work",
        zero_stage=1,
        micro_batch=4,
        measure_local=False,
        private=PrivatePart(
            unit="record",
            clipping_norm=Decimal("0.1"),
            noise_multiplier=Decimal(str(MULTIPLIER)),
            sampling_rate=Decimal(str(RATE)),
            expected_units=int(is_in.sum() * RATE),
            secret=drawn_secret(root / "secret"),
        ),
    )
    shard = shard_of(model, root / "canaries.jsonl")
    canaries = []
    for place in range(len(shard)):
        sequence = PackedSequence()
        sequence.append(*shard.cut(place, job.recipe.sequence_length))
        canaries.append(sequence)
    return Audited(job, is_in, canaries, shard_of(model, root / "train.jsonl"))


def bound_of(audited: Audited, root: Path, **changes: Any) -> float:
    """The lower bound on epsilon after the steps of the job, its private part changed."""
    assert audited.job.private is not None
    private = audited.job.private.model_copy(update=changes)
    job = audited.job.model_copy(update={"private": private})
    with only_rank(root):
        engine = WatchedEngine(job, audited.canaries)
        rule = PackingRule(job.recipe.sequence_length)
        steps = PrivateSteps(engine, job, private, "0" * 64, audited.train, rule)
        for index in range(STEPS):
            steps.step(index)
        steps.end()
    right = right_guesses(engine.scores.tolist(), audited.is_in.tolist(), GUESSES)
    return lower_bound(CANARIES, GUESSES, right, DELTA)


def test_the_claim_is_that_of_the_accountant() -> None:
    accountant = PLDAccountant()
    step = PoissonSampledDpEvent(RATE, GaussianDpEvent(MULTIPLIER))
    accountant.compose(SelfComposedDpEvent(step, STEPS))
    assert 0.8 * EPSILON < accountant.get_epsilon(DELTA) <= EPSILON


def test_guesses_do_not_refute_the_claim(audited: Audited, tmp_path: Path) -> None:
    assert bound_of(audited, tmp_path) < EPSILON


def test_guesses_refute_the_claim_where_the_noise_is_off(audited: Audited, tmp_path: Path) -> None:
    off = {"noise_multiplier": Decimal(0), "clipping_norm": Decimal(1_000_000)}
    assert bound_of(audited, tmp_path, **off) > EPSILON


def test_clipping_alone_hides_nothing(audited: Audited, tmp_path: Path) -> None:
    assert bound_of(audited, tmp_path, noise_multiplier=Decimal(0)) > EPSILON


def test_the_bound_is_that_of_the_binomial_distribution_without_a_delta() -> None:
    assert p_value(100, 40, 40, 0.0, 0.0) == pytest.approx(2.0**-40)
    assert lower_bound(100, 40, 20, 0.0) == 0
    # Of 100 right guesses of 100: 0.05 = (e^x / (1 + e^x))^100.
    expected = -np.log(0.05 ** (-1 / 100) - 1)
    assert lower_bound(100, 100, 100, 0.0) == pytest.approx(expected, abs=1e-6)
    assert lower_bound(100, 100, 100, 1e-5) < lower_bound(100, 100, 100, 0.0)
