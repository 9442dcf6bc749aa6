"""The silos' answers to a request, and the losses that they make together.

An answer counts when the admitted silo's key of the plan's membership signed it, it is bound to
this very request, has a loss for each coalition, was signed in time, and is the only one.
"""

from collections.abc import Mapping

import numpy as np

from aggregator.attempt import reference
from aggregator.contribution.closed_round import ClosedRound
from aggregator.contribution.plan import Losses
from aggregator.contribution.values import SequenceLosses
from aggregator.coordinator import Coordinator
from aggregator.evidence.ledger import Exhibit, keep
from data_contracts.protocol.bucket_layout import attempt_of
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import CoalitionLosses, ContributionRequest
from infra.records.record_store import Found, read_record

Answers = Mapping[str, Found[CoalitionLosses]]


def read_answers(
    c: Coordinator, closed: ClosedRound, request: Verified[ContributionRequest]
) -> Answers:
    """The answers that count, by silo, in the order of the request's silos."""
    found = {silo: _read(c, closed, request, silo) for silo in request.record.silos}
    return {silo: answer for silo, answer in found.items() if answer is not None}


def keep_answers(c: Coordinator, closed: ClosedRound, answers: Answers) -> Answers:
    """Keep in the ledger what the values are about to rest on; without what is gone meanwhile."""
    exhibits = [
        Exhibit(reference(answer.verified, silo, answer.version), answer.verified.envelope)
        for silo, answer in answers.items()
    ]
    kept = {ref.silo for ref in keep(c, closed.plan, exhibits)}
    return {silo: answer for silo, answer in answers.items() if silo in kept}


def losses_of(request: ContributionRequest, answers: Answers) -> Losses:
    """Losses of each coalition with one entry a silo, all of the same weight.

    As in the decision to publish: with weights a silo could decide the values by claiming tokens.
    """
    records = [answer.verified.record for answer in answers.values()]
    losses = np.array([[float(loss) for loss in record.losses] for record in records])
    return {
        coalition: SequenceLosses(losses[:, place], np.ones(len(records)))
        for place, coalition in enumerate(request.coalition_silos())
    }


def _read(
    c: Coordinator, closed: ClosedRound, request: Verified[ContributionRequest], silo: str
) -> Found[CoalitionLosses] | None:
    key = closed.feed.silo_key(closed.plan, silo)
    reading = read_record(
        c.inbox(silo),
        attempt_of(closed.plan),
        CoalitionLosses,
        {key} if key else set(),
        silo,
        belongs=lambda answer: answer.request_digest == request.digest,
    )
    if not isinstance(reading, Found):
        return None
    answer = reading.verified.record
    is_complete = len(answer.losses) == len(request.record.coalitions)
    return reading if is_complete and _is_in_time(answer, request.record) else None


def _is_in_time(answer: CoalitionLosses, request: ContributionRequest) -> bool:
    return answer.issued_at < request.answer_by
