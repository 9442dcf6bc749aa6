"""Whether a candidate is published: a pure function of plan, candidate and signed evaluations.

In order: no defence asked for a person (`robust.alarm`), enough silos evaluated
(`evaluation.quorum`), the mean is not worse
(`evaluation.mean_worse`), no silo is worse (`evaluation.silo_worse`), else `evaluation.not_worse`.
The mean is the plain mean over silos: a mean weighted by tokens would let a silo dominate by
claiming tokens, and the tokens of a held-out split are not bounded by any plan. Comparisons are
exact (fractions); only the means that the record shows are rounded.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Literal

from aggregator.attempt import SiloRecords
from aggregator.decisions.binding import binding_fault
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Candidate, Decision, Evaluation, RoundPlan

LOSS_PLACES = 6


def decide(
    plan: Verified[RoundPlan],
    candidate: Verified[Candidate],
    silos: Iterable[SiloRecords],
    issued_at: datetime,
) -> Decision:
    """The decision. Evaluations that are not bound to plan and candidate do not count.

    `missing` names every silo of the cohort without an evaluation that counts. Held means that
    later rounds start where this one started.
    """
    used = _counting(plan, candidate, silos)
    records = [evaluation.record for _, evaluation in used]
    rule = _rule(plan.record, candidate.record, records)
    outcome: Literal["published", "held"] = (
        "published" if rule == "evaluation.not_worse" else "held"
    )
    counted = {own.silo for own, _ in used}
    return Decision.on(
        plan,
        issued_at,
        candidate_digest=candidate.digest,
        outcome=outcome,
        rule=rule,
        evaluations=tuple(own.reference(evaluation) for own, evaluation in used),
        missing=tuple(sorted(set(plan.record.cohort) - counted)),
        starting_mean_loss=_mean([record.starting_loss for record in records]),
        candidate_mean_loss=_mean([record.candidate_loss for record in records]),
        published_adapter=_published(outcome, plan.record, candidate.record),
    )


def _counting(
    plan: Verified[RoundPlan], candidate: Verified[Candidate], silos: Iterable[SiloRecords]
) -> list[tuple[SiloRecords, Verified[Evaluation]]]:
    return [
        (own, evaluation)
        for own in sorted(silos, key=lambda own: own.silo)
        if (evaluation := own.evaluation) is not None
        and own.silo in plan.record.cohort
        and evaluation.record.silo == own.silo
        and binding_fault(evaluation.record, plan) is None
        and evaluation.record.candidate_digest == candidate.digest
    ]


def _rule(plan: RoundPlan, candidate: Candidate, evaluations: Sequence[Evaluation]) -> str:
    if candidate.needs_person:
        return "robust.alarm"
    if len(evaluations) < plan.evaluation_quorum:
        return "evaluation.quorum"
    increases = [Fraction(e.candidate_loss) - Fraction(e.starting_loss) for e in evaluations]
    if sum(increases) > len(increases) * Fraction(plan.publication.max_mean_increase):
        return "evaluation.mean_worse"
    if max(increases) > Fraction(plan.publication.max_silo_increase):
        return "evaluation.silo_worse"
    return "evaluation.not_worse"


def _published(outcome: str, plan: RoundPlan, candidate: Candidate) -> ArtifactRef | None:
    return candidate.adapter if outcome == "published" else plan.starting_adapter


def _mean(losses: Sequence[Decimal]) -> Decimal | None:
    if not losses:
        return None
    total = sum((Fraction(loss) for loss in losses), Fraction(0)) / len(losses)
    with localcontext(prec=60):
        value = Decimal(total.numerator) / Decimal(total.denominator)
        return value.quantize(Decimal(1).scaleb(-LOSS_PLACES))
