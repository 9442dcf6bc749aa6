"""What can be wrong with a silo's part of a round, one pure function each, in the order of asking.

A rule takes one silo's records and gives its id, or None where it has nothing against them. Those
of `SILO_RULES` are about whose records they are, those of `SUBMISSION_RULES` about what was sent.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from aggregator.attempt import SiloRecords
from aggregator.decisions.binding import binding_fault
from aggregator.decisions.privacy_rules import LOWER_TOTAL, privacy_fault
from data_contracts.dataset.suite.required_rules import REQUIRED_RULES
from data_contracts.protocol.artifact import ciphertext_limit
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan, ShareBook, Submission, Verdict
from data_contracts.protocol.records.verdict import VERDICT_VALIDITY
from infra.clock import ALLOWED_SKEW

EQUIVOCATION = "silo.equivocation"
REVOKED_SILO = "silo.revoked"
WITHDREW = "silo.withdrew"


@dataclass(frozen=True)
class Case:
    """One silo's records before the rules; `book` where the attempt passed on sealed shares."""

    plan: Verified[RoundPlan]
    records: SiloRecords
    now: datetime
    book: Verified[ShareBook] | None = None


@dataclass(frozen=True)
class Submitted:
    """A silo that submitted, with the records that every later rule needs."""

    case: Case
    submission: Verified[Submission]
    verdict: Verified[Verdict]


def _outside_cohort(case: Case) -> str | None:
    return None if case.records.silo in case.plan.record.cohort else "cohort.not_named"


def _revoked(case: Case) -> str | None:
    return REVOKED_SILO if case.records.is_revoked else None


def _withdrew(case: Case) -> str | None:
    return WITHDREW if case.records.withdrew else None


def _equivocation(case: Case) -> str | None:
    return EQUIVOCATION if case.records.equivocated else None


def _binding(case: Case) -> str | None:
    records = [verified.record for verified in case.records.judged()]
    if any(record.silo != case.records.silo for record in records):
        return "binding.silo"
    faults = (binding_fault(record, case.plan) for record in records)
    return next((fault for fault in faults if fault is not None), None)


def _no_acceptance(case: Case) -> str | None:
    submitted = case.records.submission is not None and case.records.refusal is None
    return "acceptance.missing" if submitted and case.records.acceptance is None else None


def _not_agreed(case: Case) -> str | None:
    accepted = case.records.acceptance is not None
    return "acceptance.not_agreed" if accepted and not case.records.is_agreed else None


def _other_contract(submitted: Submitted) -> str | None:
    pinned = submitted.case.plan.record.contract_digest_of(submitted.case.records.silo)
    found = submitted.verdict.record.contract_digest
    return None if found == pinned else "verdict.other_contract"


def _contradictory_verdict(submitted: Submitted) -> str | None:
    """How much a rule matters is the silo's to say, but not of those that every contract asks."""
    broken = any(
        not o.success and (o.severity == "critical" or o.rule in REQUIRED_RULES)
        for o in submitted.verdict.record.outcomes
    )
    return "verdict.contradictory" if broken else None


def _incomplete_verdict(submitted: Submitted) -> str | None:
    """A pass that leaves out a question that every contract asks is no pass."""
    asked = Counter(outcome.rule for outcome in submitted.verdict.record.outcomes)
    complete = asked.keys() >= REQUIRED_RULES and max(asked.values(), default=0) == 1
    return None if complete else "verdict.incomplete"


def _expired_verdict(submitted: Submitted) -> str | None:
    verdict = submitted.verdict.record
    if verdict.expires_at > verdict.issued_at + VERDICT_VALIDITY + ALLOWED_SKEW:
        return "verdict.too_long"
    expired = verdict.expires_at + ALLOWED_SKEW < submitted.case.now
    return "verdict.expired" if expired else None


def _other_verdict(submitted: Submitted) -> str | None:
    named = submitted.submission.record.verdict_digest
    return None if named == submitted.verdict.digest else "submission.other_verdict"


def _masks(submitted: Submitted) -> str | None:
    """Of a masked plan only what lies under pads between the silos of the share book can be summed,
    and of any other plan nothing that is masked."""
    book, named = submitted.case.book, submitted.submission.record.book_digest
    if submitted.case.plan.record.masking is None:
        return None if named is None else "masking.not_planned"
    if book is None or named != book.digest:
        return "masking.other_book"
    listed = {entry.silo for entry in book.record.shares}
    return None if submitted.case.records.silo in listed else "masking.not_listed"


def _late(submitted: Submitted) -> str | None:
    deadline = submitted.case.plan.record.submit_by + ALLOWED_SKEW
    return "submission.late" if submitted.submission.record.issued_at > deadline else None


def _steps(submitted: Submitted) -> str | None:
    """As many as the plan asks for: no fewer than its least, and none that it does not have."""
    recipe, steps = submitted.case.plan.record.recipe, submitted.submission.record.steps
    if steps < recipe.fewest_steps:
        return "submission.too_few_steps"
    return "submission.too_many_steps" if steps > recipe.local_steps else None


def _tokens(submitted: Submitted) -> str | None:
    """No more than the steps that it says it did can hold."""
    submission, recipe = submitted.submission.record, submitted.case.plan.record.recipe
    beyond = submission.tokens > recipe.tokens_in(submission.steps)
    return "submission.too_many_tokens" if beyond else None


def _private(submitted: Submitted) -> str | None:
    plan, verdict = submitted.case.plan.record, submitted.verdict.record
    return privacy_fault(plan, verdict, submitted.submission.record)


def _lower_total(submitted: Submitted) -> str | None:
    return LOWER_TOTAL if submitted.case.records.told_less else None


def _too_large(submitted: Submitted) -> str | None:
    plan = submitted.case.plan.record
    if plan.masking is not None:
        # Every masked file has the same size, which the gate asks for.
        return None
    too_large = is_too_large(submitted.submission.record, plan.max_adapter_bytes)
    return "adapter.too_large" if too_large else None


def is_too_large(submission: Submission, limit: int) -> bool:
    """Whether the blob has more than `limit` plain bytes, or what lies in storage more than such a
    blob can take."""
    ref = submission.adapter
    return ref.size > limit or ref.stored.size > ciphertext_limit(limit)


def _stored_otherwise(submitted: Submitted) -> str | None:
    """A blob is encrypted where the plan asks for it, and nowhere else."""
    return encryption_fault(submitted.case.plan.record, submitted.submission.record)


def encryption_fault(plan: RoundPlan, submission: Submission) -> str | None:
    """The rule by which a submission is stored otherwise than its plan asks for, or None."""
    parts = {submission.adapter.ciphertext is not None, submission.sealed_key is not None}
    if parts == {plan.encryption is not None}:
        return None
    return "adapter.not_encrypted" if plan.encryption is not None else "adapter.encrypted"


def _adapter_fault(submitted: Submitted) -> str | None:
    return submitted.case.records.adapter_fault


SILO_RULES: tuple[Callable[[Case], str | None], ...] = (
    _outside_cohort,
    _revoked,
    _withdrew,
    _equivocation,
    _binding,
    _no_acceptance,
    _not_agreed,
)


SUBMISSION_RULES: tuple[Callable[[Submitted], str | None], ...] = (
    _other_contract,
    _contradictory_verdict,
    _incomplete_verdict,
    _expired_verdict,
    _other_verdict,
    _masks,
    _late,
    _steps,
    _tokens,
    _private,
    _lower_total,
    _too_large,
    _stored_otherwise,
    _adapter_fault,
)
