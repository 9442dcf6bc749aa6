"""What evidence shows of a private round: what each silo that counted signed, computed again, and
held against what it signed in earlier rounds, where an auditor has their reports.

That a silo really drew, cut and noised as it says, how many units it has, and what it spent before,
is its own word.
"""

from collections.abc import Iterable, Sequence

from aggregator.audit.claim import Claim, Finding
from aggregator.audit.signed_evidence import SignedEvidence, verified_evidence
from aggregator.decisions.privacy_rules import is_lower, privacy_fault
from aggregator.report.bundle import Bundle
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Membership
from data_contracts.protocol.records.privacy_terms import PrivacyStatement


def private_statements(signed: SignedEvidence) -> Finding:
    """Whether every silo that counts was charged what its training reveals, within its budget."""
    attempt = signed.attempt
    if attempt.close is None:
        return "not checked", "the attempt was not closed"
    stated = {s.silo: s.privacy for s in signed.report.record.silos}
    largest = []
    for silo in (item.silo for item in attempt.close.record.admitted):
        verdict, submission = attempt.of(silo).verdict, attempt.of(silo).submission
        if verdict is None or submission is None:
            return "not checked", f"what {silo} signed is not in the evidence"
        fault = privacy_fault(attempt.plan.record, verdict.record, submission.record)
        if fault is not None or stated.get(silo) != verdict.record.privacy:
            return "fail", f"{silo}: {fault or 'the report says otherwise than its verdict'}"
        if verdict.record.privacy is not None:
            largest.append(verdict.record.privacy.epsilon_lifetime)
    if not largest:
        return "not checked", "no institution counted"
    return "pass", (
        f"{len(largest)} institutions, each charged what its steps reveal, computed again; the "
        f"largest lifetime total is {max(largest)}"
    )


def rising_totals(
    signed: SignedEvidence, bundles: Sequence[Bundle], pinned: Verified[Membership]
) -> Finding:
    """Whether no silo that counts says less of its population than in a report of `bundles` that
    was signed before this plan; the others are passed over."""
    attempt = signed.attempt
    if attempt.close is None:
        return "not checked", "the attempt was not closed"
    earlier: list[SignedEvidence] = []
    for bundle in bundles:
        claims: list[Claim] = []
        found = verified_evidence(bundle, pinned, claims)
        if found is None:
            return "not checked", f"a report that was given as earlier fails: {claims[-1].detail}"
        if found.report.record.issued_at <= attempt.plan.record.issued_at:
            earlier.append(found)
    if not earlier:
        return "not checked", "no earlier report was given (--earlier)"
    for silo in (item.silo for item in attempt.close.record.admitted):
        statement = _stated(signed, silo)
        if statement is not None and is_lower(statement, _told(earlier, silo)):
            return "fail", f"{silo} says less of {statement.population} than it signed before"
    return "pass", f"no total is lower than in {len(earlier)} earlier reports"


def _stated(signed: SignedEvidence, silo: str) -> PrivacyStatement | None:
    verdict = signed.attempt.of(silo).verdict
    return verdict.record.privacy if verdict is not None else None


def _told(earlier: Iterable[SignedEvidence], silo: str) -> list[PrivacyStatement]:
    found = (_stated(each, silo) for each in earlier)
    return [statement for statement in found if statement is not None]
