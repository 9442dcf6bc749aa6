"""Offline audit of a report bundle: one claim after another, each pass, fail or not checked.

Trust starts at the pinned membership and at nothing in the bundle. In order: membership, the
report's signature, completeness of the evidence, every signature, the chain of references, then
admission, the terms of the merge, publication and the report itself, each held against the
evidence. A claim whose premise failed is "not checked", so the first failure is the one to look at.
What a bundle cannot show is listed as not checked too, never passed over.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aggregator.audit.candidate_audit import unplanned
from aggregator.audit.claim import Claim
from aggregator.audit.limits import UNCHECKED
from aggregator.audit.page_audit import AS_SIGNED, FOLLOWS, page_claims
from aggregator.decisions.admission import binding_fault, judge
from aggregator.decisions.publication import decide
from aggregator.evidence.attempt import RECORD_FIELDS, Attempt, SiloRecords
from aggregator.evidence.ledger import ERASED
from aggregator.report.bundle import Bundle
from aggregator.report.carried_agreement import is_agreed
from aggregator.report.compliance_page.page import Page
from aggregator.report.report import as_judged, build_report
from data_contracts.dataset.contract.agreement import Parties
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.envelope import Verified, document_digest, unverified_record, verify
from data_contracts.protocol.membership_chain import follow_membership
from data_contracts.protocol.records import (
    RECORD_TYPES,
    Abort,
    Acceptance,
    Candidate,
    Close,
    Decision,
    Membership,
    Record,
    RoundPlan,
    RoundReport,
    SiloRecord,
)
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.trust_anchor import open_trust_anchor


@dataclass(frozen=True)
class _Signed:
    """Report and evidence after every signature was verified."""

    report: Verified[RoundReport]
    attempt: Attempt
    known: dict[str, Verified[Membership]]


class _ClaimError(Exception):
    """Carries the sentence that explains a failed claim."""


UNCHECKABLE = tuple(Claim(name, "not checked", why) for name, why in UNCHECKED)
DEPENDENT = (
    "coordinator key",
    "references",
    "data contracts agreed",
    "admission and weights",
    "merge as planned",
    "publication decision",
    "report follows from evidence",
    AS_SIGNED,
    FOLLOWS,
    "published adapter",
)


def audit(
    bundle: Bundle,
    pinned: Verified[Membership],
    adapter: Path | None = None,
    page: Page | None = None,
) -> tuple[Claim, ...]:
    """Check everything that a bundle, and the page that it came in, can show.

    `pinned` is the membership that the auditor trusts, older or newer than the one that the round
    was planned under: the memberships in the bundle lead from the one to the other. `adapter` is
    the published `adapter_model.safetensors`, where the auditor has it, and `page` the page, where
    the bundle came in one. Never raises on what is in the bundle.
    """
    claims: list[Claim] = []
    signed = _verified(bundle, pinned, claims)
    if signed is None:
        skipped = "not reached: an earlier claim failed"
        reached = {claim.name for claim in claims}
        names = ("report signature", "evidence complete", "evidence signatures", *DEPENDENT)
        claims += [Claim(n, "not checked", skipped) for n in names if n not in reached]
        return (*claims, *UNCHECKABLE)
    claims.append(_not_revoked(signed))
    claims.append(_references(signed))
    claims.append(_agreed(signed.attempt))
    claims.append(_admission(signed.attempt))
    claims.append(_merge_as_planned(signed.attempt))
    claims.append(_publication(signed.attempt))
    again = _report_again(signed)
    follows = again.outcome == "pass"
    claims.append(again)
    claims += page_claims(signed.report.record, signed.attempt, page, report_follows=follows)
    claims.append(_published_adapter(signed.report.record, adapter))
    return (*claims, *UNCHECKABLE)


def holds(claims: Sequence[Claim]) -> bool:
    """True when no claim failed."""
    return all(claim.outcome != "fail" for claim in claims)


def _verified(bundle: Bundle, pinned: Verified[Membership], claims: list[Claim]) -> _Signed | None:
    """The first four claims; None as soon as one fails."""
    name = "membership"
    try:
        chain = _known_memberships(bundle, pinned)
        membership = _named_membership(bundle, chain, pinned)
        claims.append(Claim(name, "pass", _how_trusted(membership.record, pinned.record)))
        name = "report signature"
        report = verify(bundle.report, RoundReport, _report_keys(chain, membership.record))
        claims.append(Claim(name, "pass", "signed by the coordinator of the plan or a later one"))
        name = "evidence complete"
        envelopes = _complete_evidence(bundle, report.record)
        claims.append(Claim(name, "pass", f"{len(envelopes)} records, all listed, none missing"))
        name = "evidence signatures"
        attempt = _attempt(report.record, envelopes, membership, chain)
        claims.append(Claim(name, "pass", "each record is signed by the pinned key of its signer"))
    except (_ClaimError, UntrustedInputError) as error:
        claims.append(Claim(name, "fail", str(error)))
        return None
    return _Signed(report, attempt, chain)


def _known_memberships(
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
        raise _ClaimError(
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


def _not_revoked(signed: _Signed) -> Claim:
    """Of a key that was revoked later the plans up to an entry of the feed count.

    Every version names all that were revoked before it, so the newest at hand is enough.
    """
    name, key = "coordinator key", signed.attempt.membership.record.coordinator_key
    newest = list(signed.known.values())[-1].record
    revocation = next((entry for entry in newest.revoked if entry.public_key == key), None)
    if revocation is None:
        return Claim(name, "pass", f"membership {newest.number} revokes another, or none")
    last = revocation.last_feed_number
    if signed.attempt.plan.record.feed_number > last:
        return Claim(name, "fail", f"it was revoked from feed entry {last} on, and this is later")
    detail = (
        "it was revoked later; this plan is older, but whether report and records were signed "
        "before that cannot be seen offline"
    )
    return Claim(name, "not checked", detail)


def _complete_evidence(bundle: Bundle, report: RoundReport) -> dict[str, bytes]:
    """Envelope by digest; listed and present must be the same, each once."""
    listed = Counter(ref.digest for ref in report.evidence)
    present = Counter(document_digest(envelope) for envelope in bundle.evidence)
    lacking, extra = listed - present, present - listed
    if lacking:
        raise _ClaimError(f"listed in the report but not in the bundle: {_some(lacking)}")
    if extra:
        raise _ClaimError(f"in the bundle but not listed in the report: {_some(extra)}")
    if max(listed.values(), default=0) > 1:
        raise _ClaimError("the report lists a record twice")
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
            raise _ClaimError(f"two {ref.kind} records of {ref.silo or 'the coordinator'}")
        place[ref.kind] = verified
    if RoundPlan.kind not in own:
        raise _ClaimError("the evidence has no plan")
    close, decision = own.get(Close.kind), own.get(Decision.kind)
    versions = _versions(report, close, decision)
    plan: Verified[RoundPlan] = own[RoundPlan.kind]
    members = [version.record for version in known.values()]

    def records(silo: str, found: dict[str, Verified[Any]]) -> SiloRecords:
        parties = Parties.at_plan(membership.record, members, silo)
        agreed = is_agreed(found.get(Acceptance.kind), plan.record, parties)
        return replace(_records(silo, found, versions), is_agreed=agreed)

    return Attempt(
        membership=membership,
        plan=plan,
        silos={silo: records(silo, found) for silo, found in silos.items()},
        close=close,
        candidate=own.get(Candidate.kind),
        decision=decision,
        abort=own.get(Abort.kind),
    )


def _records(
    silo: str, found: dict[str, Verified[Any]], versions: dict[str, str | None]
) -> SiloRecords:
    by_kind: dict[str, Any] = {name: found.get(name) for name in RECORD_FIELDS}
    own = {verified.digest: versions[verified.digest] for verified in found.values()}
    return SiloRecords(silo, **by_kind, versions=own)


def _versions(
    report: RoundReport, close: Verified[Close] | None, decision: Verified[Decision] | None
) -> dict[str, str | None]:
    """As the report lists them, except where close or decision named them before."""
    versions = {ref.digest: ref.version for ref in report.evidence}
    versions |= {ref.digest: ref.version for ref in (close.record.held if close else ())}
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
        raise _ClaimError(f"{ref.silo} is not in membership {named.number}")
    return {key}


def _verified_record(ref: EvidenceRef, envelope: bytes, keys: set[str]) -> Verified[Any]:
    record_type: type[Record] | None = RECORD_TYPES.get(ref.kind)
    if record_type is None or issubclass(record_type, SiloRecord) != (ref.silo is not None):
        raise _ClaimError(f"a {ref.kind} cannot be signed by {ref.silo or 'the coordinator'}")
    verified = verify(envelope, record_type, keys)
    if isinstance(verified.record, SiloRecord) and verified.record.silo != ref.silo:
        raise _ClaimError(f"a {ref.kind} signed with the key of {ref.silo} names another silo")
    return verified


def _references(signed: _Signed) -> Claim:
    """plan -> acceptance, verdict, submission -> close -> candidate -> evaluation -> decision."""
    broken = next(_broken_references(signed), None)
    if broken is not None:
        return Claim("references", "fail", broken)
    return Claim("references", "pass", "every record names the one that it rests on")


def _broken_references(signed: _Signed) -> Iterator[str]:
    report, attempt, known = signed.report, signed.attempt, signed.known
    plan = attempt.plan
    if plan.record.membership_digest != attempt.membership.digest:
        yield "the plan names another membership than the pinned one"
    if plan.record.membership_number != attempt.membership.record.number:
        yield "the plan names another membership number than the pinned one"
    if plan.record.federation != attempt.membership.record.federation:
        yield "the plan is of another federation than the pinned membership"
    governs_to = list(known.values())[-1].record.end_of(attempt.membership.digest)
    if plan.record.feed_number <= attempt.membership.record.after_feed_number or (
        governs_to is not None and plan.record.feed_number > governs_to
    ):
        yield "the plan lies outside of what its membership governs of the feed"
    bound = [report, attempt.close, attempt.candidate, attempt.decision, attempt.abort]
    for verified in bound:
        fault = binding_fault(verified.record, plan) if verified is not None else None
        if verified is not None and fault is not None:
            yield f"the {verified.record.kind} belongs to another plan ({fault})"
    candidate, close, decision = attempt.candidate, attempt.close, attempt.decision
    if candidate and (close is None or candidate.record.close_digest != close.digest):
        yield "the candidate names another close record"
    if decision and (candidate is None or decision.record.candidate_digest != candidate.digest):
        yield "the decision names another candidate"
    for silo, own in attempt.silos.items():
        evaluation = own.evaluation
        if evaluation is None:
            continue
        if candidate is None or evaluation.record.candidate_digest != candidate.digest:
            yield f"the evaluation of {silo} is of another candidate"


def _agreed(attempt: Attempt) -> Claim:
    name = "data contracts agreed"
    admitted = {item.silo for item in attempt.close.record.admitted} if attempt.close else set()
    accepted = [own for own in attempt.cohort() if own.acceptance is not None]
    wanting = [own.silo for own in accepted if not own.is_agreed]
    if admitted & set(wanting):
        return Claim(name, "fail", f"not signed by both sides: {', '.join(wanting)}")
    signed = len(accepted) - len(wanting)
    return Claim(name, "pass", f"{signed} contracts, each signed by institution and coordinator")


def _admission(attempt: Attempt) -> Claim:
    """The close record, computed again; what only the coordinator saw is taken from it."""
    name = "admission and weights"
    if attempt.close is None:
        return Claim(name, "not checked", "the attempt was not closed")
    if attempt.abort is not None and attempt.abort.record.rule == ERASED:
        return Claim(name, "not checked", "a part of what was judged was erased from storage")
    close = attempt.close.record
    again = judge(attempt.plan, as_judged(attempt, close), close.issued_at)
    different = _different_fields(again, close)
    if different:
        return Claim(name, "fail", f"computed again, these lists differ: {', '.join(different)}")
    if attempt.candidate is not None and len(close.admitted) < attempt.plan.record.quorum:
        return Claim(name, "fail", "a candidate was made below the plan's quorum")
    return Claim(name, "pass", f"{len(close.admitted)} admitted; computed again, nothing differs")


def _merge_as_planned(attempt: Attempt) -> Claim:
    name = "merge as planned"
    if attempt.close is None or attempt.candidate is None:
        return Claim(name, "not checked", "the attempt was not merged")
    plan, candidate = attempt.plan.record, attempt.candidate.record
    wrong = next(unplanned(plan, attempt.close.record, candidate), None)
    if wrong is not None:
        return Claim(name, "fail", wrong)
    return Claim(name, "pass", f"{candidate.merge_rule} over the plan's modules, as planned")


def _publication(attempt: Attempt) -> Claim:
    name = "publication decision"
    if attempt.decision is None or attempt.candidate is None:
        return Claim(name, "not checked", "the attempt was not decided")
    decision = attempt.decision.record
    silos = attempt.silos.values()
    again = decide(attempt.plan, attempt.candidate, silos, decision.issued_at)
    different = _different_fields(again, decision)
    if different:
        return Claim(name, "fail", f"computed again, these fields differ: {', '.join(different)}")
    return Claim(name, "pass", f"{decision.outcome} by {decision.rule}, computed again")


def _report_again(signed: _Signed) -> Claim:
    name, report = "report follows from evidence", signed.report.record
    if signed.attempt.decision is None and signed.attempt.abort is None:
        return Claim(name, "fail", "the evidence has neither a decision nor an abort")
    again = build_report(signed.attempt, report.issued_at)
    # The page has a claim of its own: it can be made again only by the version that made it.
    different = _different_fields(again.model_copy(update={"page": report.page}), report)
    if different:
        return Claim(name, "fail", f"computed again, these fields differ: {', '.join(different)}")
    return Claim(name, "pass", "computed again, every field is equal")


def _published_adapter(report: RoundReport, adapter: Path | None) -> Claim:
    name = "published adapter"
    if adapter is None:
        return Claim(name, "not checked", "no adapter file was given")
    if report.published_adapter is None:
        return Claim(name, "fail", "the report says that no adapter is in force")
    found = artifact_of_file(adapter)
    if found != report.published_adapter:
        return Claim(name, "fail", f"the file has digest {found.digest[:12]}, not the reported one")
    return Claim(name, "pass", "the file has the reported digest and size")


def _different_fields(again: Record, signed: Record) -> list[str]:
    fields = type(signed).model_fields
    return [name for name in fields if getattr(again, name) != getattr(signed, name)]
