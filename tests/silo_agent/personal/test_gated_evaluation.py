"""An evaluation with a gate gives the loss that the training of the personal adapter measured."""

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.base_model.context import context_tokens
from silo_agent.training.job import EvaluatedAdapter, EvaluationJob, HeldoutSet, TrainingJob
from silo_agent.training.personal_part import PersonalMeasures
from silo_agent.training.prompt_gate import PromptGate, likeness
from silo_agent.training.ranks.evaluate import evaluate
from silo_agent.training.ranks.gated_measures import BothWays
from silo_agent.training.ranks.lora_model import RESIDUAL_NAME
from silo_agent.training.ranks.packing import PackingRule, pack_heldout
from silo_agent.training.ranks.plain_model import PlainModel
from silo_agent.training.ranks.starting_tensors import starting_tensors
from silo_agent.training.run_files import ProgressWriter
from tests.silo_agent.personal.opposite_clusters import OppositeClusters
from tests.silo_agent.training.shared_ranks import finished
from tests.silo_agent.training.tiny_jobs import shard_of

ROUNDING = 1e-6
"""Nats per token between an engine of DeepSpeed and a model without."""


def measures_of(job: TrainingJob) -> PersonalMeasures:
    measures = finished(job).personal
    assert measures is not None
    return measures


def gate_of(job: TrainingJob) -> PromptGate:
    gate = measures_of(job).gate
    assert gate is not None and gate.threshold is not None
    return gate


def through(job: TrainingJob, threshold: float | None, name: str = "gated") -> EvaluatedAdapter:
    """The personal adapter of a job, by its own gate with another threshold."""
    gate = gate_of(job).model_copy(update={"threshold": threshold})
    path = finished(job).adapter
    return EvaluatedAdapter(name=name, path=path, residual=job.starting_residual, gate=gate)


def evaluation(job: TrainingJob, *adapters: EvaluatedAdapter, **sets: Path) -> EvaluationJob:
    """On the held-out records of the silo that the job is of, and on `sets`."""
    heldout = {"home": job.heldout_records, **sets}
    return EvaluationJob(
        model_dir=job.model_dir,
        layout=job.layout,
        residual_layout=job.residual_layout,
        adapters=adapters,
        heldout=tuple(HeldoutSet(name=name, records=path) for name, path in heldout.items()),
        sequence_length=job.recipe.sequence_length,
        heldout_sequences=job.heldout_sequences,
        output_dir=job.output_dir.parent / "gated",
        per_record=True,
        threads=1,
    )


def losses(job: EvaluationJob) -> Callable[[str, str], float]:
    """By the names of an adapter and a held-out set."""
    result = evaluate(job, ProgressWriter(None))

    def of(adapter: str, heldout: str) -> float:
        return result.loss(adapter, heldout).nats

    return of


@pytest.fixture
def dual(clusters: OppositeClusters) -> TrainingJob:
    return clusters.personal["dual"][0]


def test_at_home_it_is_the_personal_loss_of_the_training(clusters: OppositeClusters) -> None:
    for job in clusters.personal["dual"]:
        measures, gate = measures_of(job), gate_of(job)
        found = losses(evaluation(job, through(job, gate.threshold)))
        assert found("gated", "home") == pytest.approx(measures.used.nats, abs=ROUNDING)


def test_never_is_the_global_adapter_and_always_the_pair(dual: TrainingJob) -> None:
    """Exactly, beside what is measured without a gate in the same evaluation."""
    pair = EvaluatedAdapter(
        name="pair", path=finished(dual).adapter, residual=dual.starting_residual
    )
    alone = pair.model_copy(update={"name": "global", "path": None})
    gated = (through(dual, None, "never"), through(dual, -1.0, "always"))
    found = losses(evaluation(dual, *gated, pair, alone))
    assert found("never", "home") == found("global", "home")
    assert found("always", "home") == found("pair", "home") != found("global", "home")
    plain = evaluation(dual, alone.model_copy(update={"path": alone.residual, "residual": None}))
    only = losses(plain.model_copy(update={"residual_layout": None}))
    assert only("global", "home") == pytest.approx(found("never", "home"), abs=ROUNDING)


def test_of_each_record_it_is_the_loss_of_the_adapter_that_the_gate_takes(
    dual: TrainingJob,
) -> None:
    """By a threshold in the middle of the likenesses of the held-out prompts."""
    likenesses = likenesses_of(dual)
    middle = sorted(likenesses)[len(likenesses) // 2]
    thresholds = {"never": None, "always": -1.0, "mixed": middle}
    gated = (through(dual, threshold, name) for name, threshold in thresholds.items())
    result = evaluate(evaluation(dual, *gated), ProgressWriter(None))
    never, always, mixed = (result.loss(name, "home").records for name in thresholds)
    taken = [each >= middle for each in likenesses]
    assert any(taken) and not all(taken)
    for is_taken, record, own, other in zip(taken, mixed, always, never, strict=True):
        assert own != other and record == (own if is_taken else other)


def likenesses_of(job: TrainingJob) -> list[float]:
    """Of the held-out prompts, with the global adapter alone, in the order of the records."""
    asked = evaluation(job, through(job, None))
    model = PlainModel(asked)
    model.put(starting_tensors(job.layout, job.starting_residual), RESIDUAL_NAME)
    model.put(starting_tensors(job.layout, None))
    rule = PackingRule(job.recipe.sequence_length, model.may_pack, context_tokens(job.model_dir))
    heldout = pack_heldout(
        shard_of(job.model_dir, job.heldout_records),
        rule,
        limit=job.heldout_sequences,
        seed=job.layout.seed,
    )
    states = BothWays(model, lambda _: None).states(heldout)
    return [likeness(state, gate_of(job).centre) for state in states]
