"""What the report says of every silo: how it ended, its share of the merge, and its losses."""

from decimal import Decimal
from typing import Literal

from aggregator.attempt import Attempt
from aggregator.decisions.admission import judged_again
from aggregator.decisions.binding import binding_fault
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Candidate, Evaluation, RoundPlan, Verdict
from data_contracts.protocol.records.candidate import SiloInfluence
from data_contracts.protocol.records.round_report import SiloLosses, SiloSummary

SHARE_PLACES = 6
ABORTED_RULE = "attempt.aborted"

SiloOutcome = Literal["admitted", "rejected", "refused", "missing"]
MISSING: tuple[SiloOutcome, str | None] = ("missing", None)


def silo_summaries(attempt: Attempt) -> tuple[SiloSummary, ...]:
    """Of every silo of the cohort, sorted."""
    outcomes, weights = _silo_outcomes(attempt), _weight_shares(attempt)
    return tuple(
        _summary(attempt, silo, *outcomes.get(silo, MISSING), weights.get(silo, Decimal(0)))
        for silo in sorted(attempt.plan.record.cohort)
    )


def _silo_outcomes(attempt: Attempt) -> dict[str, tuple[SiloOutcome, str | None]]:
    """Outcome and rule of every silo, from the close record or, without one, as of the abort."""
    close = attempt.close.record if attempt.close else None
    if close is None and attempt.abort is not None:
        close = judged_again(attempt, None, attempt.abort.record.issued_at)
    if close is None:
        return dict.fromkeys(attempt.plan.record.cohort, MISSING)
    outcomes = dict.fromkeys(close.missing, MISSING)
    outcomes |= {item.silo: ("refused", item.rule) for item in close.refused}
    outcomes |= {item.silo: ("rejected", item.rule) for item in close.rejected}
    counted: tuple[SiloOutcome, str | None] = (
        ("admitted", None) if attempt.close else ("rejected", ABORTED_RULE)
    )
    return outcomes | {item.silo: counted for item in close.admitted}


def _weight_shares(attempt: Attempt) -> dict[str, Decimal]:
    """Share of the merge per admitted silo; nothing has a share where nothing was merged."""
    if attempt.close is None or attempt.candidate is None:
        return {}
    admitted = attempt.close.record.admitted
    total = Decimal(sum(item.weight for item in admitted))
    places = Decimal(1).scaleb(-SHARE_PLACES)
    return {item.silo: (item.weight / total).quantize(places) for item in admitted}


def _summary(
    attempt: Attempt, silo: str, outcome: SiloOutcome, rule: str | None, share: Decimal
) -> SiloSummary:
    contract_digest = _pinned_contract(attempt.plan.record, silo)
    verdict = _verdict_on(attempt, silo, contract_digest)
    submission = attempt.of(silo).submission
    return SiloSummary(
        silo=silo,
        outcome=outcome,
        rule=rule,
        contract_digest=contract_digest,
        contract_passed=verdict.passed if verdict else None,
        tokens=submission.record.tokens if submission else 0,
        steps=_steps(attempt, silo),
        base_weights=submission.record.base_weights if submission else None,
        weight_share=share,
        influence=_influence(attempt.candidate, silo),
        losses=_losses(attempt.of(silo).evaluation),
        privacy=verdict.privacy if verdict else None,
    )


def _steps(attempt: Attempt, silo: str) -> int | None:
    """Said only where silos may do different numbers of them, so that every release reads it."""
    submission = attempt.of(silo).submission
    may_differ = attempt.plan.record.recipe.least_steps is not None
    return submission.record.steps if submission and may_differ else None


def _influence(candidate: Verified[Candidate] | None, silo: str) -> SiloInfluence | None:
    influences = candidate.record.influences if candidate else ()
    return next((entry for entry in influences if entry.silo == silo), None)


def _pinned_contract(plan: RoundPlan, silo: str) -> str:
    return next(pin.contract_digest for pin in plan.contracts if pin.silo == silo)


def _verdict_on(attempt: Attempt, silo: str, contract_digest: str) -> Verdict | None:
    """The silo's verdict, if it is about this plan and the contract that the plan pins."""
    verified = attempt.of(silo).verdict
    if verified is None or binding_fault(verified.record, attempt.plan) is not None:
        return None
    return verified.record if verified.record.contract_digest == contract_digest else None


def _losses(evaluation: Verified[Evaluation] | None) -> SiloLosses | None:
    if evaluation is None:
        return None
    record = evaluation.record
    return SiloLosses(
        base=record.base_loss,
        starting=record.starting_loss,
        candidate=record.candidate_loss,
        silo_only=record.silo_only_loss,
        personal=record.personal_loss,
        right=record.right,
    )
