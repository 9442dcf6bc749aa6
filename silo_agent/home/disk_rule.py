"""Which rounds of a silo's disk are still needed; decided without I/O.

The newest plan of a run, and everything of its round, stays: a round under way, another attempt at
it, and what is sent again. Of the rounds before it so many stay as `keep_rounds` says, the newest
ones that this silo took part in, at least one: error feedback asks what was sent in it, and the
silo-only baseline, the personal adapter and the silo's own B go on from it. A run that is not the
newest and whose last round ended `keep_other_runs_days` ago is over: nothing of it stays. What
belongs to no plan that this silo has seen is left alone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.trusted_feed import FeedPosition, TrustedFeed
from silo_agent.config import DiskSection


@dataclass(frozen=True)
class SeenRounds:
    """The newest plan of every run, the newest of all, and how far this silo came with that one.

    `has_submitted`: then the candidate of the round may lie here. `has_evaluated`: then nothing is
    trained for the attempt any more. `may_be_asked`: then coalitions may be measured.
    """

    plans: Mapping[str, RoundPlan]
    newest: RoundPlan | None
    has_submitted: bool = False
    has_evaluated: bool = False
    may_be_asked: bool = True

    def starting_digests(self) -> frozenset[str]:
        """What the rounds of the newest plans start from."""
        refs = [ref for plan in self.plans.values() for ref in _starting(plan)]
        return frozenset(ref.digest for ref in refs if ref is not None)


@dataclass
class PruningTurn:
    """When a running agent looks for what no round needs: first, after each step of its own, with a
    new entry of the feed, and once a day. What is surplus follows from nothing else."""

    _seen: tuple[FeedPosition, date] | None = None

    def is_due(self, feed: TrustedFeed, now: datetime) -> bool:
        """Whether to look now; it counts as done."""
        seen, self._seen = self._seen, (feed.head, now.date())
        return seen != self._seen

    def stepped(self) -> None:
        """The agent has done something: look again."""
        self._seen = None


def newest_plans(feed: TrustedFeed) -> dict[str, RoundPlan]:
    """The newest plan of every run that was followed, by run."""
    return {attempt.plan.record.run: attempt.plan.record for attempt in feed.attempts}


def kept_rounds(present: Collection[int], newest: int, keep_rounds: int) -> set[int]:
    """Of the rounds that are on disk those that stay, when `newest` is the newest planned.

    What is there counts and not the number: a silo that was away keeps its last rounds, and a plan
    with a number far ahead makes nobody forget.
    """
    earlier = sorted(number for number in present if number < newest)
    return {number for number in present if number >= newest} | set(earlier[-keep_rounds:])


def is_over(run: str, seen: SeenRounds, rule: DiskSection, now: datetime) -> bool:
    """Whether a run has ended long enough ago for nothing of it to stay."""
    if seen.newest is None or seen.newest.run == run:
        return False
    return seen.plans[run].expires_at + timedelta(days=rule.keep_other_runs_days) <= now


def _starting(plan: RoundPlan) -> tuple[ArtifactRef | None, ...]:
    return plan.starting_adapter, plan.starting_residual
