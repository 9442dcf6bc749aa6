"""What each silo contributed, measured by the silos themselves on their held-out records.

ask -> wait -> read the answers -> values. Every step finds what was done before and goes on, so the
command can be killed and run again; once values are written for a request, they stay.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from aggregator.contribution.closed_round import ClosedRound, closed_round
from aggregator.contribution.plan import ContributionPlan, Method, OnMeasured, contribution_plan
from aggregator.contribution.result import (
    Contributions,
    contributions_of,
    write_contributions,
    written_by_silos,
)
from aggregator.contribution.silo_answers import Answers, keep_answers, losses_of, read_answers
from aggregator.contribution.silo_request import (
    LEAST_MEASURING,
    made_request,
    make_request,
    measuring_silos,
)
from aggregator.coordinator import Coordinator
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import ContributionRequest


@dataclass(frozen=True)
class Question:
    """Which values of which round, and how long silos have to answer a request that is new."""

    round_number: int
    exact: bool
    answer_within: timedelta


@dataclass(frozen=True)
class Waiting:
    """Who has answered and who has not; an answer after `answer_by` does not count."""

    answered: tuple[str, ...]
    missing: tuple[str, ...]
    answer_by: datetime


def contributions_by_silos(
    c: Coordinator,
    question: Question,
    wait: timedelta = timedelta(0),
    on_merged: OnMeasured | None = None,
) -> Contributions | Waiting:
    """The values, written beside the reports, or who is still waited for after `wait`.

    Raises FederationOperatorError when the silos may not be asked, were asked about other
    coalitions, or too few answered in time.
    """
    closed, until = closed_round(c, question.round_number), c.clock.now() + wait
    method: Method = "shapley" if question.exact else "leave-one-out"
    wanted = contribution_plan(closed.silos, method, bound_to=closed.digest)
    request = made_request(c, closed)
    if request is None:
        request = make_request(c, closed, wanted, question.answer_within, on_merged)
    _require_asked(request.record, wanted)
    found = _values(c, closed, request, wanted)
    while isinstance(found, Waiting) and c.clock.now() < until:
        c.clock.sleep(c.settings.round.poll_seconds)
        found = _values(c, closed, request, wanted)
    return found


def _values(
    c: Coordinator,
    closed: ClosedRound,
    request: Verified[ContributionRequest],
    wanted: ContributionPlan,
) -> Contributions | Waiting:
    round_number = closed.plan.record.round
    written = written_by_silos(c, round_number, wanted.method, request.digest)
    if written is not None:
        return written
    answers = read_answers(c, closed, request)
    missing = tuple(silo for silo in measuring_silos(closed) if silo not in answers)
    if missing and c.clock.now() < request.record.answer_by:
        return Waiting(tuple(answers), missing, request.record.answer_by)
    answers = keep_answers(c, closed, answers)
    _require_enough(request.record, answers)
    found = replace(
        contributions_of(wanted, losses_of(request.record, answers)),
        measured_by=tuple(answers),
        request_digest=request.digest,
        answer_digests=tuple(answer.verified.digest for answer in answers.values()),
    )
    write_contributions(c, round_number, found)
    return found


def _require_asked(request: ContributionRequest, wanted: ContributionPlan) -> None:
    asked = set(request.coalition_silos())
    if not asked.issuperset(wanted.coalitions):
        raise FederationOperatorError(
            f"contributions to round {request.round}, measured by silos",
            expected=f"the {len(wanted.coalitions):,} coalitions that {wanted.method} values need",
            found=f"an earlier request of {len(asked):,}, and silos answer one request a round",
            action="take leave-one-out values of this round, and ask for --exact first next time",
        )


def _require_enough(request: ContributionRequest, answers: Answers) -> None:
    if len(answers) < LEAST_MEASURING:
        raise FederationOperatorError(
            f"contributions to round {request.round}, measured by silos",
            expected=f"answers of at least {LEAST_MEASURING} silos before {request.answer_by}",
            found=", ".join(answers) or "none",
            action="measure with --public, or ask at the next round with more time",
        )
