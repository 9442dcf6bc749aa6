"""The steps of a training as its job has them: of packed sequences, or private."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from silo_agent.training.job import TrainingJob
from silo_agent.training.ranks.engine import LoraEngine
from silo_agent.training.ranks.packing import PackedSequences, PackingRule
from silo_agent.training.ranks.private.private_steps import PrivateSteps
from silo_agent.training.ranks.token_shard import TokenShard


@dataclass(frozen=True)
class StepDone:
    """The mean loss of what a step was trained on, None where that was nothing, and its tokens."""

    loss: float | None
    tokens: int


Step = Callable[[int], StepDone]
"""Does the step of this index, counted from 0; collective."""


@contextmanager
def training_steps(
    engine: LoraEngine,
    job: TrainingJob,
    fingerprint: str,
    train: PackedSequences,
    shard: TokenShard,
    rule: PackingRule,
) -> Iterator[Step]:
    """The steps of `job` on an engine that has begun it: those of `train`, or as a private job
    draws them from the shard. Raises as `PrivateSteps`."""
    if job.private is None:
        yield lambda index: _plain(engine, job.recipe.sequences_per_step, train, index)
        return
    steps = PrivateSteps(engine, job, job.private, fingerprint, shard, rule)
    try:
        yield lambda index: _private(steps, index)
    finally:
        steps.end()


def _plain(engine: LoraEngine, size: int, train: PackedSequences, index: int) -> StepDone:
    sequences = train[index * size : (index + 1) * size]
    loss = engine.step(index, sequences)
    return StepDone(loss, sum(len(sequence.token_ids) for sequence in sequences))


def _private(steps: PrivateSteps, index: int) -> StepDone:
    seen = steps.step(index)
    # A record whose loss is not finite counts as nothing; that it was there must not show.
    is_loss = seen.asked > 0 and math.isfinite(seen.loss)
    return StepDone(seen.loss / seen.asked if is_loss else None, seen.tokens)
