"""What merge rules ask of a silo's training: DeepSpeed against plain PyTorch in one process.

Two ranks at ZeRO-3, one rank at ZeRO-2 and ZeRO-1; the launches are shared, see `conftest`.
"""

import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from data_contracts.adapters.starting_adapter import (
    Float32Array,
    InitialAdapter,
    narrowed,
    tensors_of,
)
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet, TrainingJob
from silo_agent.training.ranks.evaluate import evaluate
from silo_agent.training.ranks.starting_tensors import starting_tensors
from silo_agent.training.results import EvaluationResult, TrainingResult
from silo_agent.training.run_files import ProgressWriter, RunFiles
from tests.silo_agent.training.plain_torch import (
    PlainTraining,
    plain_heldout,
    plain_model,
    train_plainly,
)
from tests.silo_agent.training.shared_ranks import finished
from tests.silo_agent.training.tiny_jobs import (
    RECIPE_LAYOUT,
    RESIDUAL_LAYOUT,
    Jobs,
    TinySilo,
    drawn_adapter,
)

pytestmark = pytest.mark.stack

TOLERANCE = 1e-5
LAYOUT = RECIPE_LAYOUT
NARROW = LAYOUT.model_copy(update={"rank": 2, "alpha": 3, "targets": LAYOUT.targets[2:]})

Tensors = dict[str, Float32Array]


def tensors_in(path: Path | None, layout: AdapterLayout = LAYOUT) -> Tensors:
    """Every tensor of an adapter file, or of the seed's adapter."""
    return dict(starting_tensors(layout, path))


def distance(one: Tensors, other: Tensors) -> float:
    """Euclidean distance of two adapters over all their factors."""
    return math.sqrt(sum(float(np.square(one[name] - other[name]).sum()) for name in one))


def largest_difference(one: Tensors, other: Tensors) -> float:
    """Largest absolute difference over all factors."""
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


@pytest.fixture(scope="module")
def job(two_ranks: Jobs) -> TrainingJob:
    return two_ranks["recipe"]


@pytest.fixture(scope="module")
def trained(job: TrainingJob) -> TrainingResult:
    return finished(job)


@pytest.fixture(scope="module")
def plain(job: TrainingJob) -> PlainTraining:
    return train_plainly(job)


def test_the_ranks_come_to_what_plain_pytorch_comes_to(
    trained: TrainingResult, plain: PlainTraining
) -> None:
    assert largest_difference(tensors_in(trained.adapter), plain.adapter) < TOLERANCE
    assert trained.starting is not None and trained.base is not None
    assert trained.starting.nats == pytest.approx(plain.starting_loss, abs=TOLERANCE)
    assert trained.base.nats == pytest.approx(plain.base_loss, abs=TOLERANCE)
    assert abs(plain.starting_loss - plain.base_loss) > 0.01


def test_one_rank_comes_to_the_same_as_two(trained: TrainingResult, one_rank: Jobs) -> None:
    single = tensors_in(RunFiles(one_rank["one-rank-b"].output_dir).adapter)
    assert largest_difference(single, tensors_in(trained.adapter)) < TOLERANCE


def test_only_a_is_trained_where_the_plan_says_so(
    one_rank: Jobs,
) -> None:
    job = one_rank["one-rank-a"]
    found = tensors_in(RunFiles(job.output_dir).adapter)
    assert largest_difference(found, train_plainly(job).adapter) < TOLERANCE
    assert _changed(found, tensors_in(job.starting_adapter)) == {"lora_A"}


def test_the_frozen_factor_leaves_as_the_bytes_that_came(
    trained: TrainingResult, job: TrainingJob
) -> None:
    assert _changed(tensors_in(trained.adapter), tensors_in(job.starting_adapter)) == {"lora_B"}


def test_the_proximal_term_keeps_the_adapter_closer_to_its_start(
    trained: TrainingResult, job: TrainingJob
) -> None:
    start = tensors_in(job.starting_adapter)
    free = train_plainly(job, proximal_mu=Decimal("0")).adapter
    assert distance(tensors_in(trained.adapter), start) < 0.95 * distance(free, start)


def test_the_silo_alone_trains_both_factors_and_knows_no_residual(
    trained: TrainingResult, job: TrainingJob
) -> None:
    alone = job.model_copy(update={"starting_adapter": None, "starting_residual": None})
    expected = train_plainly(alone, trained_factors="both", proximal_mu=Decimal("0")).adapter
    assert trained.silo_only_adapter is not None
    found = tensors_in(trained.silo_only_adapter)
    assert largest_difference(found, expected) < TOLERANCE
    assert _changed(found, tensors_in(None)) == {"lora_A", "lora_B"}


@pytest.fixture(scope="module")
def evaluation(silo: TinySilo, job: TrainingJob, narrow: Path) -> EvaluationResult:
    start, residual = job.starting_adapter, job.starting_residual
    asked = EvaluationJob(
        model_dir=silo.model_dir,
        layout=LAYOUT,
        residual_layout=RESIDUAL_LAYOUT,
        adapters=(
            EvaluatedAdapter(name="starting", path=start, residual=residual),
            EvaluatedAdapter(name="without", path=start),
            EvaluatedAdapter(name="base", path=None),
            EvaluatedAdapter(name="narrow", path=narrow, layout=NARROW),
        ),
        heldout=(HeldoutSet(name="own", records=silo.heldout_records),),
        sequence_length=job.recipe.sequence_length,
        heldout_sequences=job.heldout_sequences,
        output_dir=silo.root / "unused",
        per_sequence=True,
        threads=1,
    )
    return evaluate(asked, ProgressWriter(None))


@pytest.fixture(scope="module")
def narrow(silo: TinySilo) -> Path:
    return drawn_adapter(silo.root / "narrow.safetensors", NARROW, 0.2)


def test_an_adapter_is_measured_with_its_residual_and_without(
    evaluation: EvaluationResult, job: TrainingJob, plain: PlainTraining
) -> None:
    without = job.model_copy(update={"starting_residual": None})
    expected = {
        "starting": plain.starting_loss,
        "without": plain_heldout(plain_model(without), without),
        "base": plain.base_loss,
    }
    found = {name: evaluation.loss(name, "own").nats for name in expected}
    assert found == pytest.approx(expected, abs=TOLERANCE)
    assert len({round(loss, 3) for loss in found.values()}) == 3


def test_an_adapter_of_a_narrower_layout_is_measured_as_it_is(
    evaluation: EvaluationResult, job: TrainingJob, narrow: Path
) -> None:
    changes = {"layout": NARROW, "starting_adapter": narrow, "starting_residual": None}
    alone = job.model_copy(update=changes)
    expected = plain_heldout(plain_model(alone), alone)
    assert evaluation.loss("narrow", "own").nats == pytest.approx(expected, abs=TOLERANCE)


def test_each_sequence_is_accounted_for(evaluation: EvaluationResult, job: TrainingJob) -> None:
    entry = evaluation.loss("starting", "own")
    assert len(entry.sequences) == job.heldout_sequences
    assert sum(tokens for _, tokens in entry.sequences) == entry.tokens
    assert sum(nats for nats, _ in entry.sequences) / entry.tokens == pytest.approx(entry.nats)
    assert len({nats for nats, _ in entry.sequences}) == job.heldout_sequences


def test_a_narrow_layout_of_the_seed_is_what_the_seed_draws_for_it() -> None:
    """So a silo with a layout of its own needs no file in round 1."""
    cut = tensors_of(narrowed(InitialAdapter(LAYOUT), NARROW))
    drawn = tensors_of(InitialAdapter(NARROW))
    assert cut.keys() == drawn.keys()
    assert all(np.array_equal(cut[name], drawn[name]) for name in cut)


def _changed(now: Tensors, before: Tensors) -> set[str]:
    """Kinds of factors of which any bit differs."""
    return {name.split(".")[-2] for name in now if now[name].tobytes() != before[name].tobytes()}
