"""A place in the feed, and an attempt as the feed shows it."""

from dataclasses import dataclass, field, replace

from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Abort, RoundPlan


@dataclass(frozen=True)
class FeedPosition:
    """An entry of the feed by number and digest; 0 and None stand before the first."""

    number: int = 0
    digest: str | None = None

    def includes(self, number: int, digest: str) -> bool:
        """Whether an entry is part of a feed that ends here."""
        return number < self.number or (number == self.number and digest == self.digest)


BEGINNING = (0, 0)
"""Round and attempt before the first."""


@dataclass(frozen=True)
class FedAttempt:
    """A plan of the feed and the abort that ended its attempt, if one did.

    `reached`: the highest round, and attempt of it, that the feed had in the plan's run before.
    """

    plan: Verified[RoundPlan]
    abort: Verified[Abort] | None = None
    reached: tuple[int, int] = field(default=BEGINNING, compare=False)

    @property
    def goes_back(self) -> bool:
        """Whether the run had come as far, or farther, before this plan: no coordinator that is
        right plans that, and whoever followed would train again on what was published since."""
        return self.place <= self.reached

    @property
    def place(self) -> tuple[int, int]:
        """Round, and attempt of it."""
        return self.plan.record.round, self.plan.record.attempt

    def followed_by(self, plan: Verified[RoundPlan]) -> "FedAttempt":
        """The attempt of the run's next plan."""
        return FedAttempt(plan, reached=max(self.reached, self.place))

    def up_to(self, end: FeedPosition) -> "FedAttempt | None":
        """As a feed shows it that ends at `end`; None when its plan is no part of it."""
        plan, abort = self.plan, self.abort
        if not end.includes(plan.record.feed_number, plan.digest):
            return None
        if abort is not None and end.includes(abort.record.feed_number, abort.digest):
            return self
        return replace(self, abort=None)
