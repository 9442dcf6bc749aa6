"""The attempts of a round that is over, for whoever opens or erases what silos have sent in it."""

from aggregator.coordinator import Coordinator
from aggregator.feed.reading import read_report
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.envelope import Verified, narrowed
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.trusted_feed import TrustedFeed


def past_attempts(
    c: Coordinator, feed: TrustedFeed, run: str, round_number: int
) -> list[Verified[RoundPlan]]:
    """The plans of a round, newest first; goes through the feed.

    Raises FederationOperatorError where there are none, or the newest is under way.
    """
    what = f"round {round_number} of {run}"
    newest_of_run: Verified[RoundPlan] | None = None
    found: list[Verified[RoundPlan]] = []
    for entry in c.feed.entries_back(feed):
        plan = narrowed(entry, RoundPlan)
        if plan is None or plan.record.run != run:
            continue
        newest_of_run = newest_of_run or plan
        if plan.record.round == round_number:
            found.append(plan)
    if not found:
        raise FederationOperatorError(
            what,
            expected="a round of the feed",
            found="none",
            action="see `consortia federation show` and the reports for runs and rounds",
        )
    if found[0] is newest_of_run and read_report(c, feed, found[0]) is None:
        raise FederationOperatorError(
            what,
            expected="a round that is over: reported, or aborted and reported",
            found=f"attempt {found[0].record.attempt}, which has no report yet",
            action="wait for its report, or end it with `consortia round abort`",
        )
    return found
