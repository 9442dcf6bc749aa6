"""The candidate on this silo's held-out records, and what follows from the close record."""

import logging
from dataclasses import replace
from decimal import Decimal

from data_contracts.errors import DataStewardError
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Candidate, Close, Evaluation, Verdict
from data_contracts.protocol.records.evaluation import RightShares
from data_contracts.protocol.records.model_family import LossWords
from data_contracts.protocol.wire_types import decimal_from_float
from silo_agent.collaborators import EvaluatedAdapters, HeldoutLosses, Right
from silo_agent.personal.own_factors import begun_with, measured_with
from silo_agent.release.doors import EVALUATION_FAILED, refusal_for
from silo_agent.release.outbox import Released
from silo_agent.restarts import ProcessDiedError
from silo_agent.silo import Silo
from silo_agent.steps.answer import refuse_fault
from silo_agent.steps.own_attempt import OwnAttempt, Step
from silo_agent.steps.personalise import compare_personal

log = logging.getLogger("silo-agent")


def evaluate(
    silo: Silo, attempt: OwnAttempt, verdict: Verdict, candidate: Verified[Candidate]
) -> Step:
    """Measure base model, starting adapter and candidate, and release the losses."""
    attempt.out.require_open(Evaluation)
    plan, home = attempt.plan.record, silo.config.home
    known = silo.adapters
    adapters = EvaluatedAdapters(
        begun_with(home, plan, known.starting(plan)),
        measured_with(home, plan, known.candidate(plan, candidate.record)),
    )
    try:
        losses = silo.trainer.evaluate(plan, verdict, adapters, attempt.report)
    except DataStewardError as error:
        log.error("for the silo operator only: %s", error)
        return Step.FINISHED
    except ProcessDiedError as error:
        # What this silo trained still counts: the round was closed before.
        return refuse_fault(silo, attempt, error, refusal_for(error, EVALUATION_FAILED))
    personal = compare_personal(silo, plan, losses)
    if plan.privacy is not None:
        # Both were trained on the records without noise.
        personal, losses = None, replace(losses, silo_only=None)
    attempt.out.record(_evaluation(silo, attempt, candidate.digest, losses, personal))
    attempt.report.show("done")
    _tell(plan.round, losses, plan.learned.loss)
    return Step.EVALUATED


def _tell(number: int, losses: HeldoutLosses, words: LossWords) -> None:
    log.info(
        "round %d: candidate measured on %d held-out %s: %.4f %s, %.4f with "
        "the adapter before, %.4f with the base model alone (lower is better)",
        number,
        losses.tokens,
        words.asked,
        losses.candidate,
        words.unit,
        losses.starting,
        losses.base,
    )


def compare_with_close(silo: Silo, done: Released, close: Close) -> None:
    """Say so when the close record leaves out what this silo submitted in time; what its data
    looked like in a round that counted is what drift is measured from."""
    if done.submission is None or done.verdict is None:
        return
    submitted = done.submission.digest
    admitted = {item.submission_digest for item in close.admitted}
    if submitted in admitted:
        silo.gate.remember(done.verdict.record.findings_digest)
    elif submitted not in {item.submission_digest for item in close.rejected}:
        log.warning("the close record names neither admission nor rejection of our submission")


def _evaluation(
    silo: Silo,
    attempt: OwnAttempt,
    candidate_digest: str,
    losses: HeldoutLosses,
    personal: float | None,
) -> Evaluation:
    return Evaluation.on(
        attempt.plan,
        silo.clock.now(),
        silo=silo.name,
        candidate_digest=candidate_digest,
        tokens=losses.tokens,
        base_loss=decimal_from_float(losses.base),
        starting_loss=decimal_from_float(losses.starting),
        candidate_loss=decimal_from_float(losses.candidate),
        silo_only_loss=_decimal(losses.silo_only),
        records=losses.records,
        change_error=_decimal(losses.change_error),
        base_change_error=_decimal(losses.base_change_error),
        personal_loss=_decimal(personal),
        right=None if losses.right is None else _shares(losses.right),
    )


def _shares(right: Right) -> RightShares:
    found = (right.base, right.starting, right.candidate)
    base, starting, candidate = (decimal_from_float(share) for share in found)
    return RightShares(base=base, starting=starting, candidate=candidate)


def _decimal(value: float | None) -> Decimal | None:
    return None if value is None else decimal_from_float(value)
