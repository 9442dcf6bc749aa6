"""What evidence shows of a private round: what each silo that counted signed, computed again.

That a silo really drew, cut and noised as it says, how many units it has, and what it spent before,
is its own word.
"""

from aggregator.audit.claim import Finding
from aggregator.audit.signed_evidence import SignedEvidence
from aggregator.decisions.privacy_rules import privacy_fault


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
