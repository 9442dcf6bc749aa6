"""Which submissions count: pure rules over verified records, decided once, in `close`.

Guaranteed: every silo of the cohort ends in exactly one of four lists, the result depends on the
records alone (not on their order), and the first rule that objects is named, in the order of
`SILO_RULES` and then `SUBMISSION_RULES`. A silo's no (a refusal or a failed contract) is never
overruled by a submission. Copies are looked for last and only among submissions that would
otherwise count, so that a silo cannot knock out a neighbour from a slot that was rejected anyway.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from aggregator.evidence.attempt import SiloRecords
from data_contracts.dataset.suite.required_rules import REQUIRED_RULES
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    Close,
    RoundPlan,
    RoundRecord,
    Submission,
    Verdict,
)
from data_contracts.protocol.records.close import Admitted, Refused, Rejected
from data_contracts.protocol.records.evidence_ref import LOCAL_ADAPTER, EvidenceRef
from data_contracts.protocol.records.verdict import VERDICT_VALIDITY
from infra.clock import ALLOWED_SKEW

MAX_RULE_LENGTH = 80
EQUIVOCATION = "silo.equivocation"
REVOKED_SILO = "silo.revoked"
WITHDREW = "silo.withdrew"

RuleInput = TypeVar("RuleInput")


@dataclass(frozen=True)
class _Case:
    """One silo's records before the rules."""

    plan: Verified[RoundPlan]
    records: SiloRecords
    now: datetime


@dataclass(frozen=True)
class _Submitted:
    """A silo that submitted, with the records that every later rule needs."""

    case: _Case
    submission: Verified[Submission]
    verdict: Verified[Verdict]


def judge(plan: Verified[RoundPlan], records: Sequence[SiloRecords], now: datetime) -> Close:
    """The close record of `plan`, issued at `now`, against which verdicts expire.

    Each list is sorted by silo; a silo of the cohort without records is missing. Judging again
    with `close.issued_at` gives the same record. Raises ValueError when a silo appears twice.
    """
    by_silo = {item.silo: item for item in records}
    if len(by_silo) != len(records):
        raise ValueError("expected the records of each silo once")
    silos = sorted(set(plan.record.cohort) | set(by_silo))
    cases = [_Case(plan, by_silo.get(silo) or SiloRecords(silo), now) for silo in silos]
    outcomes = [_judge_silo(case) for case in cases]
    copied = _copies([o for o in outcomes if isinstance(o, Admitted)], plan.record)
    outcomes = [_without_copies(outcome, copied) for outcome in outcomes]
    return Close.on(
        plan,
        now,
        admitted=tuple(o for o in outcomes if isinstance(o, Admitted)),
        rejected=tuple(o for o in outcomes if isinstance(o, Rejected)),
        refused=tuple(o for o in outcomes if isinstance(o, Refused)),
        missing=tuple(o for o in outcomes if isinstance(o, str)),
        held=_held(cases, outcomes),
    )


def _held(
    cases: Sequence[_Case], outcomes: Sequence[Admitted | Rejected | Refused | str]
) -> tuple[EvidenceRef, ...]:
    """Every record that was judged, and the adapters that were let in, silo by silo."""
    adapters = {o.silo: o.adapter.digest for o in outcomes if isinstance(o, Admitted)}
    held = []
    for silo, versions, verified in (
        (c.records.silo, c.records.versions, c.records.judged()) for c in cases
    ):
        things = [(v.record.kind, v.digest) for v in verified]
        things += [(LOCAL_ADAPTER, adapters[silo])] if silo in adapters else []
        held += [
            EvidenceRef(kind=kind, silo=silo, digest=digest, version=versions.get(digest))
            for kind, digest in things
        ]
    return tuple(held)


def reached_quorum(close: Close, plan: RoundPlan) -> bool:
    """Whether enough silos were admitted to merge."""
    return len(close.admitted) >= plan.quorum


def binding_fault(record: RoundRecord, plan: Verified[RoundPlan]) -> str | None:
    """The first field by which a record belongs to something else, as a rule, or None.

    In the order federation, run, round, attempt, plan digest.
    """
    asked = plan.record
    pairs = (
        ("federation", record.federation, asked.federation),
        ("run", record.run, asked.run),
        ("round", record.round, asked.round),
        ("attempt", record.attempt, asked.attempt),
        ("plan", record.plan_digest, plan.digest),
    )
    return next((f"binding.{name}" for name, found, wanted in pairs if found != wanted), None)


def _judge_silo(case: _Case) -> Admitted | Rejected | Refused | str:
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
    submitted = _Submitted(case, submission, verdict)
    rule = _first_rule(SUBMISSION_RULES, submitted)
    return _rejected(case, rule) if rule is not None else _admitted(submitted)


def _first_rule(rules: Iterable[Callable[[RuleInput], str | None]], case: RuleInput) -> str | None:
    return next((rule for objection in rules if (rule := objection(case)) is not None), None)


def _outside_cohort(case: _Case) -> str | None:
    return None if case.records.silo in case.plan.record.cohort else "cohort.not_named"


def _revoked(case: _Case) -> str | None:
    return REVOKED_SILO if case.records.is_revoked else None


def _withdrew(case: _Case) -> str | None:
    return WITHDREW if case.records.withdrew else None


def _equivocation(case: _Case) -> str | None:
    return EQUIVOCATION if case.records.equivocated else None


def _binding(case: _Case) -> str | None:
    records = [verified.record for verified in case.records.judged()]
    if any(record.silo != case.records.silo for record in records):
        return "binding.silo"
    faults = (binding_fault(record, case.plan) for record in records)
    return next((fault for fault in faults if fault is not None), None)


def _no_acceptance(case: _Case) -> str | None:
    submitted = case.records.submission is not None and case.records.refusal is None
    return "acceptance.missing" if submitted and case.records.acceptance is None else None


def _not_agreed(case: _Case) -> str | None:
    accepted = case.records.acceptance is not None
    return "acceptance.not_agreed" if accepted and not case.records.is_agreed else None


def _other_contract(submitted: _Submitted) -> str | None:
    pinned = submitted.case.plan.record.contract_digest_of(submitted.case.records.silo)
    found = submitted.verdict.record.contract_digest
    return None if found == pinned else "verdict.other_contract"


def _contradictory_verdict(submitted: _Submitted) -> str | None:
    """How much a rule matters is the silo's to say, but not of those that every contract asks."""
    broken = any(
        not o.success and (o.severity == "critical" or o.rule in REQUIRED_RULES)
        for o in submitted.verdict.record.outcomes
    )
    return "verdict.contradictory" if broken else None


def _incomplete_verdict(submitted: _Submitted) -> str | None:
    """A pass that leaves out a question that every contract asks is no pass."""
    asked = Counter(outcome.rule for outcome in submitted.verdict.record.outcomes)
    complete = asked.keys() >= REQUIRED_RULES and max(asked.values(), default=0) == 1
    return None if complete else "verdict.incomplete"


def _expired_verdict(submitted: _Submitted) -> str | None:
    verdict = submitted.verdict.record
    if verdict.expires_at > verdict.issued_at + VERDICT_VALIDITY + ALLOWED_SKEW:
        return "verdict.too_long"
    expired = verdict.expires_at + ALLOWED_SKEW < submitted.case.now
    return "verdict.expired" if expired else None


def _other_verdict(submitted: _Submitted) -> str | None:
    named = submitted.submission.record.verdict_digest
    return None if named == submitted.verdict.digest else "submission.other_verdict"


def _late(submitted: _Submitted) -> str | None:
    deadline = submitted.case.plan.record.submit_by + ALLOWED_SKEW
    return "submission.late" if submitted.submission.record.issued_at > deadline else None


def _too_large(submitted: _Submitted) -> str | None:
    size, limit = (
        submitted.submission.record.adapter.size,
        submitted.case.plan.record.max_adapter_bytes,
    )
    return "adapter.too_large" if size > limit else None


def _adapter_fault(submitted: _Submitted) -> str | None:
    return submitted.case.records.adapter_fault


SILO_RULES: tuple[Callable[[_Case], str | None], ...] = (
    _outside_cohort,
    _revoked,
    _withdrew,
    _equivocation,
    _binding,
    _no_acceptance,
    _not_agreed,
)
SUBMISSION_RULES: tuple[Callable[[_Submitted], str | None], ...] = (
    _other_contract,
    _contradictory_verdict,
    _incomplete_verdict,
    _expired_verdict,
    _other_verdict,
    _late,
    _too_large,
    _adapter_fault,
)


def _refused_by_silo(case: _Case) -> Refused | None:
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


def _rejected(case: _Case, rule: str) -> Rejected:
    submission = case.records.submission
    return Rejected(
        silo=case.records.silo,
        submission_digest=submission.digest if submission else None,
        rule=rule,
    )


def _admitted(submitted: _Submitted) -> Admitted:
    """Weight: tokens claimed, but no more than the recipe can use or the plan's cap allows."""
    plan, submission = submitted.case.plan.record, submitted.submission.record
    return Admitted(
        silo=submitted.case.records.silo,
        submission_digest=submitted.submission.digest,
        verdict_digest=submitted.verdict.digest,
        adapter=submission.adapter,
        weight=min(submission.tokens, plan.recipe.tokens_per_round, plan.merge.weight_cap_tokens),
    )


def _copies(admitted: Sequence[Admitted], plan: RoundPlan) -> set[str]:
    """Digests that more than one silo submitted, or that the round started from."""
    counts = Counter(item.adapter.digest for item in admitted)
    copied = {digest for digest, count in counts.items() if count > 1}
    return copied | ({plan.starting_adapter.digest} if plan.starting_adapter else set())


def _without_copies(
    outcome: Admitted | Rejected | Refused | str, copied: set[str]
) -> Admitted | Rejected | Refused | str:
    if not isinstance(outcome, Admitted) or outcome.adapter.digest not in copied:
        return outcome
    return Rejected(
        silo=outcome.silo,
        submission_digest=outcome.submission_digest,
        rule="free_rider.copied",
    )
