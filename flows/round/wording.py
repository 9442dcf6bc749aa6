"""What the log of a round says: every number with its unit, and what it is a number of."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

from data_contracts.protocol.records import Abort, Candidate, Close, Decision, RoundPlan

SHORT_DIGEST = 12

_AFTER_REFUSAL = {
    "training.failed": "try another attempt, or give it a smaller adapter in silo_adapters",
    "evaluation.failed": "its adapter counts, its losses do not",
    "data.check_failed": "the next attempt looks at its data again; its own log says what happened",
}
"""What the federation operator can do about a silo whose machine gave out."""


def opened(plan: RoundPlan, digest: str) -> str:
    """Whom the plan asks, and until when."""
    return (
        f"{_attempt(plan)}: plan {digest[:SHORT_DIGEST]} asks {len(plan.cohort)} silos, "
        f"adapters are due by {_utc(plan.submit_by)}, losses by {_utc(plan.evaluate_by)}"
    )


def closed(record: Close | Abort, digest: str) -> str:
    """How many silos were admitted, or why there will be no model."""
    if isinstance(record, Abort):
        return aborted(record)
    return (
        f"round {record.round}: {len(record.admitted)} silos admitted, "
        f"{len(record.refused)} refused, {len(record.rejected)} rejected, "
        f"{len(record.missing)} missing (close record {digest[:SHORT_DIGEST]})"
        f"{copies(record)}"
    )


def copies(record: Close) -> str:
    """Whose changes are the same, and what to do about it; nothing where none are."""
    if not record.alike:
        return ""
    said = ", ".join(
        f"{found.silo} is like {found.like or 'the start'} (cosine {found.cosine})"
        for found in record.alike
    )
    return (
        f"; the same change twice: {said}. Ask the silos; name the one that counts under "
        "[copies.counted] in federation.toml, from the next plan on"
    )


def refused(rule: str) -> str:
    """By which rule a silo refused, and what can be done where its machine gave out."""
    said = f"refused by {rule}"
    return f"{said}: {_AFTER_REFUSAL[rule]}" if rule in _AFTER_REFUSAL else said


def merged(plan: RoundPlan, candidate: Candidate) -> str:
    """How much of the weighted sum the candidate holds."""
    if candidate.error is None:
        return (
            f"round {candidate.round}: the sum of the silos' masked changes was opened and made "
            f"into candidate {candidate.adapter.digest[:SHORT_DIGEST]} by {candidate.merge_rule}"
            f"{_stepped(candidate)}"
        )
    if plan.shares_a:
        return (
            f"round {candidate.round}: merged into candidate "
            f"{candidate.adapter.digest[:SHORT_DIGEST]} by shared_a: the weighted mean of the "
            f"silos' A, each of which keeps its own B{_stepped(candidate)}"
        )
    return (
        f"round {candidate.round}: merged into candidate "
        f"{candidate.adapter.digest[:SHORT_DIGEST]} by {candidate.merge_rule}; "
        f"{_percent(candidate.discarded_energy)} of the weighted sum's squared norm was dropped "
        f"when it was cut to rank {plan.layout.rank}; the distance to what the rule should give "
        f"is {_percent(candidate.error)}{_interval(candidate)} of that one's norm"
        f"{_stepped(candidate)}"
    )


def _interval(candidate: Candidate) -> str:
    """Of an error that was estimated."""
    if candidate.error_interval is None:
        return ""
    return f" ± {_percent(candidate.error_interval)} (estimated)"


def _stepped(candidate: Candidate) -> str:
    return "" if candidate.step is None else f"; the step was {candidate.step:.3g}"


def decided(plan: RoundPlan, decision: Decision) -> str:
    """Published or held, by which rule, and on which losses."""
    said = f"round {decision.round}: {decision.outcome} by the rule {decision.rule}"
    before, after = decision.starting_mean_loss, decision.candidate_mean_loss
    if before is None or after is None:
        return f"{said}; no silo measured the candidate"
    return (
        f"{said}; mean held-out loss of {len(decision.evaluations)} silos, lower is better: "
        f"{after:.4f} {plan.learned.loss.unit}, {before:.4f} with the adapter before"
    )


def aborted(abort: Abort) -> str:
    """Why an attempt ended without a model."""
    attempt = f"round {abort.round} attempt {abort.attempt}"
    return f"{attempt}: aborted by the rule {abort.rule}: {abort.reason}"


def _attempt(plan: RoundPlan) -> str:
    return f"round {plan.round} attempt {plan.attempt}"


def _percent(share: Decimal) -> str:
    return f"{share * 100:.2f} %"


def _utc(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"


def versions_line(coordinator: str | None, silos: Iterable[tuple[str, str | None]]) -> str:
    """`coordinator` made the plan; a silo that has not said its version is left out."""
    known = [(silo, program) for silo, program in silos if program is not None]
    versions = {program for _, program in known} | ({coordinator} if coordinator else set())
    if len(versions) <= 1:
        return f"version {versions.pop()}" if versions else ""
    said = ", ".join(f"{silo} {program}" for silo, program in known)
    return f"versions differ: coordinator {coordinator or 'unknown'}, {said}; see docs/upgrade.md"
