"""One attempt at a round as one silo takes part in it; made once for a step, which works on it."""

from dataclasses import dataclass
from enum import Enum

from data_contracts.protocol.bucket_layout import attempt_of
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan
from silo_agent.federation.feed import FeedView
from silo_agent.release.outbox import Released
from silo_agent.release.release import PlanRelease
from silo_agent.release.status_reporter import StatusReporter
from silo_agent.silo import Silo


class Step(Enum):
    """What a step has done, or why there was nothing to do."""

    REFUSED = "refused"
    ACCEPTED = "accepted"
    CHECKED_DATA = "checked data"
    MASKED = "said its part of the masks"
    SUBMITTED = "submitted"
    PERSONALISED = "trained its personal adapter"
    EVALUATED = "evaluated"
    MEASURED = "measured coalitions"
    WAITING = "waiting for the coordinator"
    FINISHED = "finished"


@dataclass(frozen=True)
class OwnAttempt:
    """A plan, the feed it was read in, what this silo has released on it, and its way out.

    `done` is what the outbox held when the step began.
    """

    plan: Verified[RoundPlan]
    feed: FeedView
    done: Released
    out: PlanRelease
    report: StatusReporter

    @property
    def is_over(self) -> bool:
        """Whether nothing more is asked of this silo than losses of coalitions."""
        done = self.done
        failed = done.verdict is not None and not done.verdict.record.passed
        return failed or done.refusal is not None or done.evaluation is not None


def own_attempt(silo: Silo, feed: FeedView, plan: Verified[RoundPlan]) -> OwnAttempt:
    """What the silo has done about a plan so far; UntrustedInputError for a foreign outbox."""
    recipient = feed.membership_of(plan).coordinator_recipient
    out = silo.release.about(plan, feed.parties(silo.name), recipient)
    return OwnAttempt(
        plan=plan,
        feed=feed,
        done=silo.release.outbox.released(attempt_of(plan)),
        out=out,
        report=StatusReporter(out, silo.clock, silo.config, plan, silo.metrics),
    )
