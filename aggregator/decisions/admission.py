"""Which submissions count: pure rules over verified records, decided once, in `close`.

Guaranteed: every silo of the cohort ends in exactly one of four lists, the result depends on the
records alone (not on their order), and the first rule that objects is named, in the order of
`SILO_RULES` and then `SUBMISSION_RULES`. A silo's no (a refusal or a failed contract) is never
overruled by a submission. Copies are looked for last and only among submissions that would
otherwise count, so that a silo cannot knock out a neighbour from a slot that was rejected anyway.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from aggregator.attempt import Attempt, SiloRecords
from aggregator.decisions.admission_rules import (
    EQUIVOCATION,
    REVOKED_SILO,
    SILO_RULES,
    SUBMISSION_RULES,
    WITHDREW,
    Case,
    Submitted,
)
from aggregator.decisions.copies import COPIED, copies_of, likenesses_of
from aggregator.decisions.privacy_rules import LOWER_TOTAL
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Close, RoundPlan, ShareBook, Verdict
from data_contracts.protocol.records.close import Admitted, Refused, Rejected
from data_contracts.protocol.records.evidence_ref import LOCAL_ADAPTER, EvidenceRef

MAX_RULE_LENGTH = 80
GATE_RULES = ("adapter.", "blob.", "masking.wrong_")
"""Beginnings of the rules by which the gate refuses what was sent."""

RuleInput = TypeVar("RuleInput")


def judge(
    plan: Verified[RoundPlan],
    records: Sequence[SiloRecords],
    now: datetime,
    book: Verified[ShareBook] | None = None,
) -> Close:
    """The close record of `plan`, issued at `now`, against which verdicts expire.

    `book` is the attempt's share book, where its plan is masked.

    Each list is sorted by silo; a silo of the cohort without records is missing. Judging again
    with `close.issued_at` gives the same record. Raises ValueError when a silo appears twice.
    """
    by_silo = {item.silo: item for item in records}
    if len(by_silo) != len(records):
        raise ValueError("expected the records of each silo once")
    silos = sorted(set(plan.record.cohort) | set(by_silo))
    cases = [Case(plan, by_silo.get(silo) or SiloRecords(silo), now, book) for silo in silos]
    outcomes = [_judge_silo(case) for case in cases]
    would_count = [o for o in outcomes if isinstance(o, Admitted)]
    alike = likenesses_of(would_count, by_silo, plan.record)
    copied = copies_of(alike, plan.record)
    outcomes = [_without_copies(outcome, copied) for outcome in outcomes]
    return Close.on(
        plan,
        now,
        admitted=tuple(o for o in outcomes if isinstance(o, Admitted)),
        rejected=tuple(o for o in outcomes if isinstance(o, Rejected)),
        refused=tuple(o for o in outcomes if isinstance(o, Refused)),
        missing=tuple(o for o in outcomes if isinstance(o, str)),
        held=_held(cases, outcomes),
        alike=alike or None,
    )


def _held(
    cases: Sequence[Case], outcomes: Sequence[Admitted | Rejected | Refused | str]
) -> tuple[EvidenceRef, ...]:
    """Every record that was judged, and the adapters that were let in, silo by silo."""
    adapters = {o.silo: o.adapter.stored.digest for o in outcomes if isinstance(o, Admitted)}
    held: list[EvidenceRef] = []
    for own in (case.records for case in cases):
        held += [own.reference(verified) for verified in own.judged()]
        if (digest := adapters.get(own.silo)) is not None:
            at = own.versions.get(digest)
            held += [EvidenceRef(kind=LOCAL_ADAPTER, silo=own.silo, digest=digest, version=at)]
    return tuple(held)


def judged_again(attempt: Attempt, close: Close | None, now: datetime) -> Close:
    """As `judge` for an attempt of the past: what only the coordinator saw is taken from `close`.

    Without one nothing was seen: neither a fault of an adapter nor a second record in a slot.
    """
    rules = {item.silo: item.rule for item in close.rejected} if close else {}
    alike = {found.silo: found for found in (close.alike or ())} if close else {}
    versions: dict[str | None, dict[str, str | None]] = {}
    for ref in close.held if close else ():
        versions.setdefault(ref.silo, {})[ref.digest] = ref.version
    silos = set(attempt.plan.record.cohort) | {s for s, r in attempt.silos.items() if r.judged()}
    seen = [
        replace(
            attempt.of(silo),
            equivocated=rules.get(silo) == EQUIVOCATION,
            is_revoked=rules.get(silo) == REVOKED_SILO,
            withdrew=rules.get(silo) == WITHDREW,
            adapter_fault=_gate_rule(rules.get(silo)),
            told_less=rules.get(silo) == LOWER_TOTAL,
            alike=alike.get(silo),
            versions=versions.get(silo, {}),
        )
        for silo in sorted(silos)
    ]
    return judge(attempt.plan, seen, now, attempt.book)


def _gate_rule(rule: str | None) -> str | None:
    return rule if rule is not None and rule.startswith(GATE_RULES) else None


def reached_quorum(close: Close, plan: RoundPlan) -> bool:
    """Whether enough silos were admitted to merge."""
    return len(close.admitted) >= plan.quorum


def _judge_silo(case: Case) -> Admitted | Rejected | Refused | str:
    """One of the four outcomes; a plain silo id means missing."""
    rule = _first_rule(SILO_RULES, case)
    if rule is not None:
        return _rejected(case, rule)
    refused = _refused_by_silo(case)
    if refused is not None:
        return refused
    submission, verdict = case.records.submission, case.records.verdict
    if submission is None:
        return case.records.silo
    if verdict is None:
        return _rejected(case, "verdict.missing")
    submitted = Submitted(case, submission, verdict)
    rule = _first_rule(SUBMISSION_RULES, submitted)
    return _rejected(case, rule) if rule is not None else _admitted(submitted)


def _first_rule(rules: Iterable[Callable[[RuleInput], str | None]], case: RuleInput) -> str | None:
    return next((rule for objection in rules if (rule := objection(case)) is not None), None)


def _refused_by_silo(case: Case) -> Refused | None:
    refusal, verdict = case.records.refusal, case.records.verdict
    if refusal is not None:
        return Refused(
            silo=case.records.silo, record_digest=refusal.digest, rule=refusal.record.rule
        )
    if verdict is not None and not verdict.record.passed:
        rule = failing_rule(verdict.record)
        return Refused(silo=case.records.silo, record_digest=verdict.digest, rule=rule)
    return None


def failing_rule(verdict: Verdict) -> str:
    """`verdict.` and the first failing rule, critical ones first; `verdict.failed` without one."""
    failing = [outcome for outcome in verdict.outcomes if not outcome.success]
    critical = [outcome for outcome in failing if outcome.severity == "critical"]
    first = next(iter(critical + failing), None)
    return f"verdict.{first.rule if first else 'failed'}"[:MAX_RULE_LENGTH]


def _rejected(case: Case, rule: str) -> Rejected:
    submission = case.records.submission
    return Rejected(
        silo=case.records.silo,
        submission_digest=submission.digest if submission else None,
        rule=rule,
    )


def _admitted(submitted: Submitted) -> Admitted:
    """Weight: tokens that it says it trained on, which its steps can hold, up to the plan's cap."""
    plan, submission = submitted.case.plan.record, submitted.submission.record
    return Admitted(
        silo=submitted.case.records.silo,
        submission_digest=submitted.submission.digest,
        verdict_digest=submitted.verdict.digest,
        adapter=submission.adapter,
        weight=plan.weight_of(submission.tokens),
    )


def _without_copies(
    outcome: Admitted | Rejected | Refused | str, copied: set[str]
) -> Admitted | Rejected | Refused | str:
    if not isinstance(outcome, Admitted) or outcome.silo not in copied:
        return outcome
    return Rejected(silo=outcome.silo, submission_digest=outcome.submission_digest, rule=COPIED)
