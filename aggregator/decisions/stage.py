"""The stage of a round, as a pure function of the verified records that exist."""

from datetime import datetime
from enum import Enum

from aggregator.attempt import Attempt, SiloRecords
from aggregator.decisions.exchange import exchange_of, listed_silos


class Stage(Enum):
    """What the coordinator has to do next."""

    EXCHANGING = "waiting for what silos need of each other's masks"
    RELAYING = "ready to pass on what silos need of each other's masks"
    COLLECTING = "waiting for silos"
    CLOSING = "ready to close"
    MERGING = "ready to merge"
    EVALUATING = "waiting for evaluations"
    DECIDING = "ready to decide"
    VOID = "void: a membership that crossed with the plan made it nothing"
    ABORTING = "to be aborted and tried again"
    REPORTING = "ready to report"
    REPORTED = "reported"


def stage_of(
    attempt: Attempt, now: datetime, *, reported: bool = False, interrupted: bool = False
) -> Stage:
    """In order: report, abort, decision, interruption, candidate, close; then what silos owe."""
    if reported:
        return Stage.REPORTED
    if attempt.abort is not None or attempt.decision is not None:
        return Stage.REPORTING
    if interrupted:
        return Stage.ABORTING
    plan = attempt.plan.record
    if attempt.candidate is not None:
        waiting = now < plan.evaluate_by and owing_evaluation(attempt)
        return Stage.EVALUATING if waiting else Stage.DECIDING
    if (owed := exchange_of(attempt)) is not None:
        return Stage.RELAYING if owed.is_over(now) else Stage.EXCHANGING
    if attempt.close is not None:
        return Stage.MERGING
    waiting = now < plan.submit_by and owing_answer(attempt)
    return Stage.COLLECTING if waiting else Stage.CLOSING


def owing_answer(attempt: Attempt) -> tuple[str, ...]:
    """Silos of the cohort that may still submit: neither refusal, failed verdict nor submission,
    nor two different records in one slot; of a masked plan those of its share book."""
    listed = listed_silos(attempt)
    return tuple(
        own.silo
        for own in attempt.cohort()
        if not _answered(own) and (listed is None or own.silo in listed)
    )


def owing_evaluation(attempt: Attempt) -> tuple[str, ...]:
    """Silos that will evaluate the candidate and have not: a pass, no refusal after it, and one
    record in each slot."""
    return tuple(own.silo for own in attempt.cohort() if _will_evaluate(own))


def _will_evaluate(own: SiloRecords) -> bool:
    if own.late_refusal is not None:
        return False
    verdict = own.verdict
    if verdict is None or not verdict.record.passed or not verdict.record.evaluates:
        return False
    return own.evaluation is None and own.refusal is None and not own.equivocated


def _answered(own: SiloRecords) -> bool:
    # Of a key that is in use on two machines nothing counts that is still to come.
    return own.has_declined or own.submission is not None
