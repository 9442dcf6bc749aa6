"""What evidence shows of a masked sum: who was in it, who agreed to that, and what opened it.

The sum itself cannot be repeated without the masked files, which stay in the ledger. This can: that
every list the coordinator passed on is of words that silos signed, that as many as the plan asks
saw the close record before a share was revealed, that of no silo both secrets were opened, and that
what the shares give are the secrets which their owners had committed to.
"""

from collections.abc import Iterator

from aggregator.attempt import UNMASKING_KINDS, Attempt
from aggregator.audit.claim import Finding
from aggregator.audit.signed_evidence import SignedEvidence
from aggregator.decisions.exchange import listed_silos
from aggregator.decisions.opening import usable_shares
from aggregator.unmasking.opening_seeds import opening_seeds
from data_contracts.confidential.attempt import group_of, terms_of
from data_contracts.errors import ConsortiaError
from data_contracts.protocol.records import Countersignature, SealedShares
from data_contracts.protocol.relayed import relayed


def masked_sum(signed: SignedEvidence) -> Finding:
    """Whether a masked sum was opened by those, and only in the way, that its plan says."""
    attempt = signed.attempt
    if attempt.candidate is None or attempt.close is None:
        return "not checked", "no sum was opened"
    try:
        wrong = next(_contradictions(attempt), None)
    except ConsortiaError as error:
        wrong = f"{error.problem}: {error.found}"
    if wrong is not None:
        return "fail", wrong
    count, listed = len(attempt.close.record.admitted), len(listed_silos(attempt) or ())
    return "pass", (
        f"a sum of {count} silos out of {listed} with masks, countersigned before it was opened; "
        "of no silo both secrets were revealed"
    )


def _contradictions(attempt: Attempt) -> Iterator[str]:
    roster, book, close = attempt.roster, attempt.book, attempt.close
    countersigned, candidate = attempt.countersigned, attempt.candidate
    plan, members = attempt.plan, attempt.membership.record
    if roster is None or book is None or countersigned is None:
        yield "a list that the coordinator passes on is not in the evidence"
        return
    if close is None or candidate is None:
        return
    group = group_of(plan, roster, members)
    shares = relayed(book.record.shares, SealedShares, plan, members)
    wrong = [s for s, word in shares.items() if word.record.roster_digest != roster.digest]
    if wrong or book.record.roster_digest != roster.digest or not set(shares) <= set(group.silos):
        yield "sealed shares are for another roster"
    admitted = {item.silo for item in close.record.admitted}
    if not admitted <= set(shares):
        yield "the close record admits a silo that sealed no shares"
    said = relayed(countersigned.record.countersignatures, Countersignature, plan, members)
    agreeing = [
        silo
        for silo, word in said.items()
        if silo in admitted
        and (word.record.close_digest, word.record.book_digest) == (close.digest, book.digest)
    ]
    if len(agreeing) < terms_of(plan.record).threshold:
        yield f"{len(agreeing)} silos countersigned the close record, fewer than the threshold"
    named = {ref.digest for ref in candidate.record.unmasking or ()}
    there = {
        word.digest
        for own in attempt.cohort()
        for word in own.records()
        if word.record.kind in UNMASKING_KINDS
    }
    if named != there:
        yield "the candidate names other shares than those in the evidence"
    if len(usable_shares(attempt)) < len([o for o in attempt.cohort() if o.revealed_shares]):
        yield "a silo revealed what it was not asked for, or a share that it was not given"
    opening_seeds(attempt)
