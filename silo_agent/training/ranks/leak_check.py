"""What a local adapter tells of the records that it was trained on, measured before it leaves.

Records of both sides, trained on and held out, go through the model twice: with the local adapter,
which is what leaves, and with the starting one, which everybody had. The first pass sees how much
there is time for, the second measures the same sequences.

Where canaries were planted they go first, with their candidates, in a part of the time.

An answer comes back verbatim where each of its first tokens is the model's first guess behind the
true ones before it: that is what greedy decoding yields token by token, without a pass for each.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_contracts.protocol.records.model_family import CAUSAL
from silo_agent.leaks.figures import FEWEST_TOKENS, LeakFigures, Membership, Verbatim
from silo_agent.leaks.statistics import auc, chance_of_as_many
from silo_agent.training.job import TrainingJob
from silo_agent.training.leak_part import LeakPart
from silo_agent.training.loss import of_records
from silo_agent.training.ranks.canary_check import (
    Canaries,
    canaries_of,
    exposure_of,
    packed_part,
)
from silo_agent.training.ranks.checkpoints import ResumePoint
from silo_agent.training.ranks.leak_measuring import Budget, Found, Measuring, Trained
from silo_agent.training.ranks.packed_records import Packed, Shards
from silo_agent.training.ranks.packing import PackedSequences, PackingRule
from silo_agent.training.ranks.starting_tensors import begun_tensors
from silo_agent.training.ranks.token_shard import Places, TokenShard

FIRST_PASS_SHARE = 0.45
"""Of the time that canaries leave: as much again for the second pass, a tenth for what is around
them."""


@dataclass(frozen=True)
class Side:
    """Records that were all trained on, or all held out; `in_all`: how many of them there are."""

    sequences: PackedSequences
    in_all: int


def side(shard: TokenShard, places: Places, rule: PackingRule, most: int, seed: int) -> Side:
    """At most `most` records of a shard, drawn by `seed`, as far as they lie at `places`."""
    records = shard.records_of(places)
    distinct = np.unique(records)
    drawn = np.random.Generator(np.random.PCG64(seed)).permutation(distinct)[:most]
    part = packed_part(shard, places[np.isin(records, drawn)], rule, seed)
    return Side(part, len(distinct))


def usable_places(shard: TokenShard, rule: PackingRule) -> Places:
    """Of all conversations of a shard of which something is asked."""
    places = np.arange(len(shard))
    usable: Places = places[shard.fit(places, rule.room).is_usable]
    return usable


def budget_of(part: LeakPart, seconds: float, tokens: int) -> Budget:
    """What a training of so many seconds and tokens leaves for its check."""
    return Budget(part.share_of_training * seconds, seconds / max(1, tokens))


def checked_leaks(
    engine: Trained,
    job: TrainingJob,
    shards: Shards,
    packed: Packed,
    rule: PackingRule,
    spent: ResumePoint,
) -> LeakFigures | None:
    """Figures of the adapter in the engine, beside its training and not in its time; None where
    the job asks for none."""
    asked = job.leak_check
    if asked is None:
        return None
    places = packed.train.first_places(spent.step * job.recipe.sequences_per_step)
    if job.private is not None:
        # What its steps draw, they draw of all.
        places = usable_places(shards.train, rule)
    canaries = canaries_of(asked.canaries, shards, places, rule, job.recipe.seed)
    places = places if canaries is None else canaries.others(places)
    heldout, most = usable_places(shards.heldout, rule), asked.most_records
    trained = side(shards.train, places, rule, most, job.recipe.seed)
    others = side(shards.heldout, heldout, rule, most, job.recipe.seed)
    budget = budget_of(asked, spent.seconds, spent.tokens)
    return leak_figures(engine, job, trained, others, budget, canaries)


def leak_figures(
    engine: Trained,
    job: TrainingJob,
    trained: Side,
    heldout: Side,
    budget: Budget,
    canaries: Canaries | None = None,
) -> LeakFigures:
    """Figures of the adapter that the engine has trained, and has no more afterwards; collective.

    Within the budget: none but counts where it has no time for one sequence of each side.
    """
    began, measuring = time.monotonic(), Measuring(engine, job)
    sides = (trained.sequences, heldout.sequences)
    exposure = None if canaries is None else exposure_of(measuring, canaries, budget)
    left = budget.less(time.monotonic() - began)
    after = measuring.until(sides, left.share(FIRST_PASS_SHARE))
    engine.put(begun_tensors(job))
    before = [measuring.of(found.sequences) for found in after]
    scores = [_scores(measuring, *each) for each in zip(sides, before, after, strict=True)]
    told = [_told(*each) for each in zip(sides, after, strict=True)]
    return LeakFigures(
        trained=len(scores[0]),
        heldout=len(scores[1]),
        trained_in_all=trained.in_all,
        heldout_in_all=heldout.in_all,
        is_cut=any(len(f.sequences) < len(s) for f, s in zip(after, sides, strict=True)),
        seconds=time.monotonic() - began,
        membership=_membership(*scores),
        verbatim=_verbatim(*told) if job.task.family == CAUSAL else None,
        exposure=exposure,
    )


def _scores(
    measuring: Measuring, sequences: PackedSequences, before: Found, after: Found
) -> list[float]:
    """How much each record's loss per token has fallen."""
    starting, local = measuring.losses(before), measuring.losses(after)
    records = sequences.records[: len(local)]
    pairs = zip(of_records(starting, records), of_records(local, records), strict=True)
    return [(was - now) / tokens for (was, tokens), (now, _) in pairs if tokens]


def _told(sequences: PackedSequences, after: Found) -> list[bool]:
    """Of each record that is long enough to say, whether a piece of it comes back."""
    found: dict[int, bool] = {}
    rows = after.guessed.tolist()
    for record, (compared, right) in zip(sequences.records[: len(rows)], rows, strict=True):
        if compared >= FEWEST_TOKENS:
            found[record] = found.get(record, False) or compared == right
    return list(found.values())


def _membership(members: Sequence[float], others: Sequence[float]) -> Membership | None:
    if min(len(members), len(others)) < 2:
        return None
    found = auc(members, others)
    return Membership(auc=found.value, low=found.low, high=found.high)


def _verbatim(trained: Sequence[bool], heldout: Sequence[bool]) -> Verbatim:
    counts = (sum(trained), len(trained), sum(heldout), len(heldout))
    return Verbatim(
        trained=counts[0],
        of_trained=counts[1],
        heldout=counts[2],
        of_heldout=counts[3],
        chance=min(1.0, chance_of_as_many(*counts)),
    )
