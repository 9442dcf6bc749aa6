"""How exposed planted canaries are: their losses under the local adapter among those of candidates.

Of a model that has learned nothing of a canary its loss has any rank among those of candidates that
were drawn as it was and planted nowhere, so one pass with one adapter says it, and no reference
model is asked.
"""

from dataclasses import dataclass

import numpy as np

from silo_agent.leaks.figures import Exposure
from silo_agent.leaks.statistics import chance_of_mean_exposure, exposures
from silo_agent.training.leak_part import CanaryPart
from silo_agent.training.loss import of_records
from silo_agent.training.ranks.leak_measuring import Budget, Found, Measuring
from silo_agent.training.ranks.packed_records import Shards
from silo_agent.training.ranks.packing import PackedSequences, PackingRule, pack_heldout
from silo_agent.training.ranks.personal_measures import PartOfShard
from silo_agent.training.ranks.token_shard import Places, TokenShard

SHARE_OF_CHECK = 0.25
"""Of the time of a leak check, for canaries and candidates."""
EVERY_SEQUENCE = 10**9


@dataclass(frozen=True)
class Canaries:
    """Those that were trained on, `of_planted` many, and the candidates, as sequences; the planted
    records are the last of the shard `train`, from `first` on."""

    planted: PackedSequences
    candidates: PackedSequences
    of_planted: int
    train: TokenShard
    first: int

    def others(self, places: Places) -> Places:
        """Places of what is no canary."""
        found: Places = places[self.train.records_of(places) < self.first]
        return found


def canaries_of(
    part: CanaryPart | None, shards: Shards, places: Places, rule: PackingRule, seed: int
) -> Canaries | None:
    """Of a training on the conversations at `places`; None where none are planted."""
    if part is None or shards.canaries is None:
        return None
    train, reference = shards.train, shards.canaries
    first = _records(train) - part.planted * part.copies
    records = train.records_of(places)
    trained = np.unique((records[records >= first] - first) % part.planted)
    every = np.arange(len(reference))
    of = reference.records_of(every)
    # Where nothing was planted in this round there is nothing to hold candidates against.
    is_candidate = (of >= part.planted) & (len(trained) > 0)
    planted, candidates = (
        packed_part(reference, every[chosen], rule, seed)
        for chosen in (np.isin(of, trained), is_candidate)
    )
    return Canaries(planted, candidates, len(trained), train, first)


def packed_part(shard: TokenShard, places: Places, rule: PackingRule, seed: int) -> PackedSequences:
    """All records at places of a shard, maybe none, in an order that `seed` decides."""
    if not len(places):
        return PackedSequences(shard, rule, (), (seed, 0))
    return pack_heldout(PartOfShard(shard, places), rule, limit=EVERY_SEQUENCE, seed=seed)


def exposure_of(measuring: Measuring, canaries: Canaries, budget: Budget) -> Exposure:
    """Under the adapter in the engine, of as many as a part of the budget has time for;
    collective."""
    sides = (canaries.planted, canaries.candidates)
    found = measuring.until(sides, budget.share(SHARE_OF_CHECK))
    losses = [_losses(measuring, *each) for each in zip(sides, found, strict=True)]
    # Without candidates nothing is said: every canary is the first of one.
    bits = exposures(*losses)
    mean = sum(bits) / len(bits) if bits else 0.0
    return Exposure(
        planted=len(bits),
        of_planted=canaries.of_planted,
        candidates=len(losses[1]),
        mean=mean,
        highest=max(bits, default=0.0),
        chance=chance_of_mean_exposure(mean, len(bits)),
    )


def _losses(measuring: Measuring, sequences: PackedSequences, found: Found) -> list[float]:
    """Of each record in nats: of secrets of one length, how unlikely it is."""
    sums = measuring.losses(found)
    return [nats for nats, _ in of_records(sums, sequences.records[: len(sums)])]


def _records(shard: TokenShard) -> int:
    """How many a shard is of."""
    return int(shard.records_of(np.array([len(shard) - 1]))[0]) + 1
