"""The evidence of a bundle with every signature verified, from the pinned membership on.

Trust starts at the pinned membership and at nothing in the bundle: the memberships that it leads
to, the report's signature, completeness, then every record under the key of its signer.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from aggregator.attempt import Attempt, SiloRecords
from aggregator.audit.claim import Claim
from aggregator.decisions.carried_agreement import is_agreed
from aggregator.report.bundle import Bundle
from data_contracts.dataset.contract.agreement import Parties
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.envelope import Verified, document_digest, unverified_record, verify
from data_contracts.protocol.membership_chain import follow_membership
from data_contracts.protocol.records import (
    RECORD_TYPES,
    Abort,
    Acceptance,
    Candidate,
    Close,
    CountersignedClose,
    Decision,
    MaskRoster,
    Membership,
    Record,
    RoundPlan,
    RoundReport,
    ShareBook,
    SiloRecord,
)
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.trust_anchor import open_trust_anchor

SIGNATURES = ("membership", "report signature", "evidence complete", "evidence signatures")


@dataclass(frozen=True)
class SignedEvidence:
    """Report and evidence after every signature was verified; `known` memberships, oldest first."""

    report: Verified[RoundReport]
    attempt: Attempt
    known: dict[str, Verified[Membership]]

    @property
    def newest(self) -> Membership:
        """The newest membership at hand; it names every key that was revoked before it."""
        return list(self.known.values())[-1].record


class ClaimError(Exception):
    """Carries the sentence that explains a failed claim."""


def verified_evidence(
    bundle: Bundle, pinned: Verified[Membership], claims: list[Claim]
) -> SignedEvidence | None:
    """Adds the claims of `SIGNATURES` to no other ones; None as soon as one fails."""

    def holds(detail: str) -> None:
        claims.append(Claim(SIGNATURES[len(claims)], "pass", detail))

    try:
        chain = known_memberships(bundle, pinned)
        membership = _named_membership(bundle, chain, pinned)
        holds(_how_trusted(membership.record, pinned.record))
        report = verify(bundle.report, RoundReport, _report_keys(chain, membership.record))
        holds("signed by the coordinator of the plan or a later one")
        envelopes = _complete_evidence(bundle, report.record)
        holds(f"{len(envelopes)} records, all listed, none missing")
        attempt = _attempt(report.record, envelopes, membership, chain)
        holds("each record is signed by the pinned key of its signer")
    except (ClaimError, UntrustedInputError) as error:
        claims.append(Claim(SIGNATURES[len(claims)], "fail", str(error)))
        return None
    return SignedEvidence(report, attempt, chain)


def known_memberships(
    bundle: Bundle, pinned: Verified[Membership]
) -> dict[str, Verified[Membership]]:
    """By digest, oldest first: the pinned membership and all in the bundle that it leads to.

    Newer ones by the signatures of the version before, older ones because the pinned one names
    their digests. What it does not lead to is passed over.
    """
    known = {pinned.digest: pinned}
    for envelope in (*bundle.memberships, *bundle.evidence):
        if pinned.record.vouches_for(document_digest(envelope)):
            earlier = open_trust_anchor(envelope)
            known[earlier.digest] = earlier
    newest = pinned
    for envelope in bundle.memberships:
        if unverified_record(envelope, Membership).number == newest.record.number + 1:
            newest = follow_membership(newest, envelope)
            known[newest.digest] = newest
    return dict(sorted(known.items(), key=lambda item: item[1].record.number))


def _named_membership(
    bundle: Bundle, known: dict[str, Verified[Membership]], pinned: Verified[Membership]
) -> Verified[Membership]:
    """The membership that the report lists; checked before any signature is believed."""
    claimed = unverified_record(bundle.report, RoundReport)
    listed = {ref.digest for ref in claimed.evidence if ref.kind == Membership.kind}
    if len(listed) != 1 or not listed <= known.keys():
        number = pinned.record.number
        raise ClaimError(
            "the report rests on a membership that the pinned one, "
            f"number {number}, neither names nor leads to"
        )
    return known[listed.pop()]


def _how_trusted(named: Membership, pinned: Membership) -> str:
    if named.number == pinned.number:
        return f"number {named.number}, as pinned by the auditor"
    how = "named by" if named.number < pinned.number else "signed on from"
    return f"number {named.number}, {how} number {pinned.number}, which the auditor pinned"


def _report_keys(known: dict[str, Verified[Membership]], named: Membership) -> set[str]:
    """Who may sign the report: the plan's coordinator, or a later one that was not revoked."""
    newest = list(known.values())[-1].record
    revoked = {entry.public_key for entry in newest.revoked}
    later = (m.record for m in known.values() if m.record.number > named.number)
    return ({membership.coordinator_key for membership in later} - revoked) | {
        named.coordinator_key
    }


def _complete_evidence(bundle: Bundle, report: RoundReport) -> dict[str, bytes]:
    """Envelope by digest; listed and present must be the same, each once."""
    listed = Counter(ref.digest for ref in report.evidence)
    present = Counter(document_digest(envelope) for envelope in bundle.evidence)
    lacking, extra = listed - present, present - listed
    if lacking:
        raise ClaimError(f"listed in the report but not in the bundle: {_some(lacking)}")
    if extra:
        raise ClaimError(f"in the bundle but not listed in the report: {_some(extra)}")
    if max(listed.values(), default=0) > 1:
        raise ClaimError("the report lists a record twice")
    return {document_digest(envelope): envelope for envelope in bundle.evidence}


def _some(digests: Counter[str]) -> str:
    return ", ".join(digest[:12] for digest in sorted(digests)[:5])


def _attempt(
    report: RoundReport,
    envelopes: dict[str, bytes],
    membership: Verified[Membership],
    known: dict[str, Verified[Membership]],
) -> Attempt:
    """Every record verified under the key of the signer that the report names, and in its place."""
    own: dict[str, Verified[Any]] = {Membership.kind: membership}
    silos: dict[str, dict[str, Verified[Any]]] = {}
    for ref in report.evidence:
        if ref.kind == Membership.kind:
            continue
        keys = _signer_keys(ref, membership.record, known)
        verified = _verified_record(ref, envelopes[ref.digest], keys)
        place = own if ref.silo is None else silos.setdefault(ref.silo, {})
        if ref.kind in place:
            raise ClaimError(f"two {ref.kind} records of {ref.silo or 'the coordinator'}")
        place[ref.kind] = verified
    if RoundPlan.kind not in own:
        raise ClaimError("the evidence has no plan")
    close, decision = own.get(Close.kind), own.get(Decision.kind)
    versions = _versions(report, close, own.get(Candidate.kind), decision)
    plan: Verified[RoundPlan] = own[RoundPlan.kind]
    members = [version.record for version in known.values()]

    def records(silo: str, found: dict[str, Verified[Any]]) -> SiloRecords:
        parties = Parties.at_plan(membership.record, members, silo)
        agreed = is_agreed(found.get(Acceptance.kind), plan.record, parties)
        own = SiloRecords.found(silo, ((v, versions[v.digest]) for v in found.values()))
        return replace(own, is_agreed=agreed)

    return Attempt(
        membership=membership,
        plan=plan,
        silos={silo: records(silo, found) for silo, found in silos.items()},
        close=close,
        candidate=own.get(Candidate.kind),
        decision=decision,
        abort=own.get(Abort.kind),
        roster=own.get(MaskRoster.kind),
        book=own.get(ShareBook.kind),
        countersigned=own.get(CountersignedClose.kind),
    )


def _versions(
    report: RoundReport,
    close: Verified[Close] | None,
    candidate: Verified[Candidate] | None,
    decision: Verified[Decision] | None,
) -> dict[str, str | None]:
    """As the report lists them, except where close, candidate or decision named them before."""
    versions = {ref.digest: ref.version for ref in report.evidence}
    versions |= {ref.digest: ref.version for ref in (close.record.held if close else ())}
    opened_by = (candidate.record.unmasking if candidate else None) or ()
    versions |= {ref.digest: ref.version for ref in opened_by}
    used = decision.record.evaluations if decision else ()
    return versions | {ref.digest: ref.version for ref in used}


def _signer_keys(
    ref: EvidenceRef, named: Membership, known: dict[str, Verified[Membership]]
) -> set[str]:
    """The key of the silo, or the coordinator's; an abort may be a later coordinator's."""
    if ref.kind == Abort.kind:
        return _report_keys(known, named)
    key = named.key_of(ref.silo) if ref.silo else named.coordinator_key
    if key is None:
        raise ClaimError(f"{ref.silo} is not in membership {named.number}")
    return {key}


def _verified_record(ref: EvidenceRef, envelope: bytes, keys: set[str]) -> Verified[Any]:
    record_type: type[Record] | None = RECORD_TYPES.get(ref.kind)
    if record_type is None or issubclass(record_type, SiloRecord) != (ref.silo is not None):
        raise ClaimError(f"a {ref.kind} cannot be signed by {ref.silo or 'the coordinator'}")
    verified = verify(envelope, record_type, keys)
    if isinstance(verified.record, SiloRecord) and verified.record.silo != ref.silo:
        raise ClaimError(f"a {ref.kind} signed with the key of {ref.silo} names another silo")
    return verified
