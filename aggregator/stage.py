"""The stage of a round, as a pure function of the verified records that exist."""

from datetime import datetime
from enum import Enum

from aggregator.report import Evidence
from data_contracts.records import RoundPlan


class Stage(Enum):
    """What the coordinator has to do next."""

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
    evidence: Evidence, now: datetime, *, reported: bool = False, interrupted: bool = False
) -> Stage:
    """In order: report, abort, decision, interruption, candidate, close; then what silos owe."""
    if reported:
        return Stage.REPORTED
    if evidence.abort is not None or evidence.decision is not None:
        return Stage.REPORTING
    if interrupted:
        return Stage.ABORTING
    plan = evidence.plan.record
    if evidence.candidate is not None:
        waiting = now < plan.evaluate_by and owing_evaluation(evidence)
        return Stage.EVALUATING if waiting else Stage.DECIDING
    if evidence.close is not None:
        return Stage.MERGING
    waiting = now < plan.submit_by and owing_answer(evidence, plan)
    return Stage.COLLECTING if waiting else Stage.CLOSING


def owing_answer(evidence: Evidence, plan: RoundPlan) -> tuple[str, ...]:
    """Silos of the cohort that may still submit: neither refusal, failed verdict nor submission."""
    return tuple(silo for silo in plan.cohort if not _answered(evidence, silo))


def owing_evaluation(evidence: Evidence) -> tuple[str, ...]:
    """Silos that will evaluate the candidate and have not: a pass, and no refusal after it."""
    cohort = evidence.plan.record.cohort
    return tuple(silo for silo in cohort if _will_evaluate(evidence, silo))


def _will_evaluate(evidence: Evidence, silo: str) -> bool:
    verdict = evidence.verdicts.get(silo)
    if verdict is None or not verdict.record.passed or not verdict.record.evaluates:
        return False
    return silo not in evidence.evaluations and silo not in evidence.refusals


def _answered(evidence: Evidence, silo: str) -> bool:
    verdict = evidence.verdicts.get(silo)
    failed = verdict is not None and not verdict.record.passed
    return failed or silo in evidence.refusals or silo in evidence.submissions
