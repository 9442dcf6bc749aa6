"""A job's records as the sequences that are trained on and measured."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.base_model.context import context_tokens
from silo_agent.training.job import EvaluationJob, TrainingJob
from silo_agent.training.ranks.conversation import ChatTokenizer
from silo_agent.training.ranks.families.family import Family, Telling
from silo_agent.training.ranks.packing import (
    PackedSequences,
    PackingRule,
    count_all,
    pack_heldout,
    pack_training,
)
from silo_agent.training.ranks.personal_measures import trained_part
from silo_agent.training.ranks.shard_cache import ShardCache
from silo_agent.training.ranks.token_shard import TokenShard
from silo_agent.training.results import PackingCounts

Tokenizer = Callable[[Path], ChatTokenizer]
"""Gives that of a model's folder."""


@dataclass(frozen=True)
class Shards:
    """The tokens of all records of a training; of canaries and their candidates where some are
    planted."""

    train: TokenShard
    heldout: TokenShard
    canaries: TokenShard | None = None


@dataclass(frozen=True)
class Packed:
    """The records as sequences, and how they became that."""

    train: PackedSequences
    heldout: PackedSequences
    counts: PackingCounts


def sequence_length(job: TrainingJob | EvaluationJob) -> int:
    """In tokens, as the plan has it."""
    return job.sequence_length if isinstance(job, EvaluationJob) else job.recipe.sequence_length


def packing_rule(
    job: TrainingJob | EvaluationJob, family: Family, tokenizer: Tokenizer, *, together: bool
) -> PackingRule:
    """How sequences are made for a job; `together`: of several records where the family packs."""
    return PackingRule(
        length=sequence_length(job),
        together=together and family.packs,
        context=context_tokens(job.model_dir),
        shown=family.shown(lambda: tokenizer(job.model_dir), job.model_dir),
    )


def shard_cache(
    job: TrainingJob | EvaluationJob,
    family: Family,
    directory: Path,
    tokenizer: Tokenizer,
    say: Callable[[str], None],
) -> ShardCache:
    """Tokens for a job, kept in `directory`."""
    room = PackingRule(sequence_length(job), context=context_tokens(job.model_dir)).room
    telling = Telling(job.model_dir, job.prompt_date, room)
    return ShardCache(directory, family, telling, tokenizer, say)


def shards_of(job: TrainingJob, cache: ShardCache) -> Shards:
    """Of the records that a job trains on and is measured on."""
    train = trained_part(job, cache.of(job.train_records))
    reference = job.leak_check.reference_canaries if job.leak_check else None
    canaries = cache.of(reference) if reference else None
    return Shards(train, cache.of(job.heldout_records), canaries)


def packed(job: TrainingJob, shards: Shards, rule: PackingRule) -> Packed:
    """The sequences of all its steps, and of its held-out records; steps of a private job make
    their own."""
    train, counts = _training(job, shards.train, rule)
    heldout = pack_heldout(
        shards.heldout,
        rule,
        limit=job.heldout_sequences,
        # Not the recipe's seed, which changes with the round: losses of all rounds are compared.
        seed=job.layout.seed,
    )
    return Packed(train, heldout, counts)


def _training(
    job: TrainingJob, shard: TokenShard, rule: PackingRule
) -> tuple[PackedSequences, PackingCounts]:
    recipe = job.recipe
    if job.private is not None:
        return PackedSequences(shard, rule, (), (0, job.round)), count_all(shard, rule)
    return pack_training(
        shard,
        rule,
        count=recipe.local_steps * recipe.sequences_per_step,
        seed=recipe.seed,
        round_number=job.round,
    )
