"""An attempt as storage shows it at one moment: read once, and handed to the step that is due."""

from dataclasses import dataclass

from aggregator.attempt import Attempt
from aggregator.coordinator import Coordinator
from aggregator.decisions.interruption import Interruption, interruption_of
from aggregator.decisions.stage import Stage, stage_of
from aggregator.evidence.reader import read_attempt
from aggregator.feed.reading import is_fed, read_federation, read_report
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan, RoundReport
from data_contracts.protocol.trusted_feed import TrustedFeed


@dataclass(frozen=True)
class Look:
    """The feed, the attempt's records, its report and what ends it from outside; and its stage."""

    feed: TrustedFeed
    attempt: Attempt
    report: Verified[RoundReport] | None
    interruption: Interruption | None
    stage: Stage

    @property
    def plan(self) -> Verified[RoundPlan]:
        """The plan of the attempt."""
        return self.attempt.plan


def look(c: Coordinator, plan: Verified[RoundPlan], feed: TrustedFeed | None = None) -> Look:
    """Read everything about an attempt once; `feed` where it was read just now."""
    feed = feed or read_federation(c)
    report = read_report(c, feed, plan)
    attempt = read_attempt(c, feed, plan, report)
    interruption = interruption_of(feed, attempt)
    if is_fed(c, feed, plan):
        stage = stage_of(
            attempt,
            c.clock.now(),
            reported=report is not None,
            interrupted=interruption is not None,
        )
    else:
        stage = Stage.VOID
    return Look(feed, attempt, report, interruption, stage)
