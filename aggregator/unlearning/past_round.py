"""A round that is past, as far as unlearning asks about it; and the line of rounds of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan, RoundReport

Outcome = Literal["published", "held", "aborted", "open"]


@dataclass(frozen=True)
class Work:
    """What one silo says that it did in a round."""

    steps: int = 0
    tokens: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.steps + other.steps, self.tokens + other.tokens)


@dataclass(frozen=True)
class PastRound:
    """One attempt. `counted`: what each silo whose submission counted did. `made`: the candidate
    with what goes with it, by plain digest, where it was published; its adapter first. `report`:
    None where there is none, or none any more."""

    plan: Verified[RoundPlan]
    outcome: Outcome
    counted: Mapping[str, Work] = field(default_factory=dict)
    made: tuple[ArtifactRef, ...] = ()
    report: Verified[RoundReport] | None = None

    @property
    def record(self) -> RoundPlan:
        """The plan."""
        return self.plan.record

    @property
    def is_decided(self) -> bool:
        """Whether it ended with a published or a held candidate."""
        return self.outcome in ("published", "held")

    @property
    def published(self) -> str | None:
        """Digest of the adapter that it published."""
        return self.made[0].digest if self.made else None

    @property
    def starts(self) -> frozenset[str]:
        """Digests of all that it started from."""
        return frozenset(ref.digest for ref in self.record.starts)


def line_of(history: Sequence[PastRound], run: str) -> list[PastRound]:
    """The decided rounds that led to where a run is, in their order: its own, and where it repeats
    rounds of another run, those of that one before. An attempt that was aborted made nothing."""
    own = [past for past in history if past.record.run == run and past.is_decided]
    first = next((past for past in history if past.record.run == run), None)
    if first is None or first.record.replay is None:
        return own
    repeated = first.record.replay.plan_digest
    old = next((past for past in history if past.plan.digest == repeated), None)
    if old is None:
        return own
    before = line_of(history, old.record.run)
    return [past for past in before if past.record.round < old.record.round] + own


def with_part_of(history: Sequence[PastRound], silo: str) -> dict[str, PastRound]:
    """Every digest that a silo's part is in, and the round that made it, in the order of the feed:
    it counted in the round, or the round started from such a digest."""
    found: dict[str, PastRound] = {}
    for past in sorted(history, key=lambda past: past.record.feed_number):
        if past.made and (silo in past.counted or past.starts & found.keys()):
            found |= {ref.digest: past for ref in past.made}
    return found
