"""Offline audit of a report bundle: one claim after another, each pass, fail or not checked.

Trust starts at the pinned membership and at nothing in the bundle. In order: membership, the
report's signature, completeness of the evidence, every signature, the chain of references, then
admission, the terms of the merge, publication and the report itself, each held against the
evidence. A claim whose premise failed is "not checked", so the first failure is the one to look at.
What a bundle cannot show is listed as not checked too, never passed over.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from aggregator.audit.candidate_audit import unplanned
from aggregator.audit.claim import Claim, Finding
from aggregator.audit.erasure_audit import revocation_claims
from aggregator.audit.masking_audit import masked_sum
from aggregator.audit.page_audit import AS_SIGNED, FOLLOWS, page_claims
from aggregator.audit.privacy_audit import private_statements, rising_totals
from aggregator.audit.references import references
from aggregator.audit.signed_evidence import SIGNATURES, SignedEvidence, verified_evidence
from aggregator.decisions.admission import judged_again
from aggregator.decisions.interruption import ERASED
from aggregator.decisions.publication import decide
from aggregator.report.bundle import Bundle
from aggregator.report.compliance_page.page import Page
from aggregator.report.limits import UNCHECKED
from aggregator.report.round_report import build_report
from data_contracts.protocol.artifact import artifact_of_file
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Membership, Record, RoundReport

PUBLISHED_ADAPTER = "published adapter"
MASKED_SUM = "masked sum opened as agreed"
PRIVACY = "differential privacy as charged"
TOTALS = "lifetime totals rise"
UNCHECKABLE = tuple(Claim(name, "not checked", why) for name, why in UNCHECKED)


def audit(
    bundle: Bundle,
    pinned: Verified[Membership],
    adapter: Path | None = None,
    page: Page | None = None,
    *,
    erasures: Sequence[bytes] = (),
    earlier: Sequence[Bundle] = (),
) -> tuple[Claim, ...]:
    """Check everything that a bundle, and the page that it came in, can show.

    `pinned` is the membership that the auditor trusts, older or newer than the one that the round
    was planned under: the memberships in the bundle lead from the one to the other. `adapter` is
    the published `adapter_model.safetensors`, where the auditor has it, and `page` the page, where
    the bundle came in one. `erasures` are the envelopes of those that the auditor has: none of them
    may revoke the round's adapter, or what it started from. `earlier` are bundles of other rounds,
    of any run, which what a private one says of lifetime totals is held against. Never raises on
    what is in a bundle.
    """
    claims: list[Claim] = []
    signed = verified_evidence(bundle, pinned, claims)
    if signed is None:
        skipped = "not reached: an earlier claim failed"
        reached = {claim.name for claim in claims}
        names = [*SIGNATURES, *FINDINGS, AS_SIGNED, FOLLOWS, PUBLISHED_ADAPTER]
        claims += [Claim(n, "not checked", skipped) for n in names if n not in reached]
        return (*claims, *UNCHECKABLE)
    findings = dict(FINDINGS)
    if signed.attempt.plan.record.masking is not None:
        findings = {MASKED_SUM: masked_sum} | findings
    if signed.attempt.plan.record.privacy is not None:
        private: dict[str, Callable[[SignedEvidence], Finding]] = {
            PRIVACY: private_statements,
            TOTALS: partial(rising_totals, bundles=earlier, pinned=pinned),
        }
        findings = private | findings
    claims += [Claim(name, *finding(signed)) for name, finding in findings.items()]
    report, follows = signed.report.record, claims[-1].outcome == "pass"
    return (
        *claims,
        *page_claims(report, signed.attempt, page, report_follows=follows),
        Claim(PUBLISHED_ADAPTER, *_published_adapter(report, adapter)),
        *_not_erased(signed, erasures),
        *UNCHECKABLE,
    )


def _not_erased(signed: SignedEvidence, erasures: Sequence[bytes]) -> list[Claim]:
    adapter = signed.report.record.published_adapter
    published = None if adapter is None else adapter.digest
    return revocation_claims(signed.attempt.plan.record, published, erasures, signed.known)


def holds(claims: Sequence[Claim]) -> bool:
    """True when no claim failed."""
    return all(claim.outcome != "fail" for claim in claims)


def _not_revoked(signed: SignedEvidence) -> Finding:
    """Of a key that was revoked later the plans up to an entry of the feed count.

    Every version names all that were revoked before it, so the newest at hand is enough.
    """
    key, newest = signed.attempt.membership.record.coordinator_key, signed.newest
    revocation = next((entry for entry in newest.revoked if entry.public_key == key), None)
    if revocation is None:
        return "pass", f"membership {newest.number} revokes another, or none"
    last = revocation.last_feed_number
    if signed.attempt.plan.record.feed_number > last:
        return "fail", f"it was revoked from feed entry {last} on, and this is later"
    detail = (
        "it was revoked later; this plan is older, but whether report and records were signed "
        "before that cannot be seen offline"
    )
    return "not checked", detail


def _agreed(signed: SignedEvidence) -> Finding:
    attempt = signed.attempt
    admitted = {item.silo for item in attempt.close.record.admitted} if attempt.close else set()
    accepted = [own for own in attempt.cohort() if own.acceptance is not None]
    wanting = [own.silo for own in accepted if not own.is_agreed]
    if admitted & set(wanting):
        return "fail", f"not signed by both sides: {', '.join(wanting)}"
    return (
        "pass",
        f"{len(accepted) - len(wanting)} contracts, each signed by institution and coordinator",
    )


def _admission(signed: SignedEvidence) -> Finding:
    """The close record, computed again; what only the coordinator saw is taken from it."""
    attempt = signed.attempt
    if attempt.close is None:
        return "not checked", "the attempt was not closed"
    if attempt.abort is not None and attempt.abort.record.rule == ERASED:
        return "not checked", "a part of what was judged was erased from storage"
    close = attempt.close.record
    again = judged_again(attempt, close, close.issued_at)
    if different := _different_fields(again, close):
        return "fail", f"computed again, these lists differ: {different}"
    if attempt.candidate is not None and len(close.admitted) < attempt.plan.record.quorum:
        return "fail", "a candidate was made below the plan's quorum"
    return "pass", f"{len(close.admitted)} admitted; computed again, nothing differs"


def _merge_as_planned(signed: SignedEvidence) -> Finding:
    attempt = signed.attempt
    if attempt.close is None or attempt.candidate is None:
        return "not checked", "the attempt was not merged"
    plan, candidate = attempt.plan.record, attempt.candidate.record
    wrong = next(unplanned(plan, attempt.close.record, candidate), None)
    if wrong is not None:
        return "fail", wrong
    return "pass", f"{candidate.merge_rule} over the plan's modules, as planned"


def _publication(signed: SignedEvidence) -> Finding:
    attempt = signed.attempt
    if attempt.decision is None or attempt.candidate is None:
        return "not checked", "the attempt was not decided"
    decision = attempt.decision.record
    silos = attempt.silos.values()
    again = decide(attempt.plan, attempt.candidate, silos, decision.issued_at)
    if different := _different_fields(again, decision):
        return "fail", f"computed again, these fields differ: {different}"
    return "pass", f"{decision.outcome} by {decision.rule}, computed again"


def _report_again(signed: SignedEvidence) -> Finding:
    report = signed.report.record
    if signed.attempt.decision is None and signed.attempt.abort is None:
        return "fail", "the evidence has neither a decision nor an abort"
    again = build_report(signed.attempt, report.issued_at)
    # The page has a claim of its own: it can be made again only by the version that made it.
    again = again.model_copy(update={"page": report.page})
    if different := _different_fields(again, report):
        return "fail", f"computed again, these fields differ: {different}"
    return "pass", "computed again, every field is equal"


FINDINGS: dict[str, Callable[[SignedEvidence], Finding]] = {
    "coordinator key": _not_revoked,
    "references": references,
    "data contracts agreed": _agreed,
    "admission and weights": _admission,
    "merge as planned": _merge_as_planned,
    "publication decision": _publication,
    "report follows from evidence": _report_again,
}
"""What verified evidence shows, by the names of the claims and in their order."""


def _published_adapter(report: RoundReport, adapter: Path | None) -> Finding:
    if adapter is None:
        return "not checked", "no adapter file was given"
    if report.published_adapter is None:
        return "fail", "the report says that no adapter is in force"
    found = artifact_of_file(adapter)
    if found != report.published_adapter.plain:
        other = f"the file has digest {found.digest[:12]}, not the reported one"
        if report.merge.rule == "shared_a":
            other += ", which is of factors A alone: an institution's own adapter is in no report"
        return "fail", other
    if report.merge.rule == "shared_a":
        return "pass", (
            "the file has the reported digest and size: factors A alone, which no model loads "
            "without an institution's own B"
        )
    return "pass", "the file has the reported digest and size"


def _different_fields(again: Record, signed: Record) -> str:
    """Their names; empty where the two say the same."""
    fields = type(signed).model_fields
    return ", ".join(name for name in fields if getattr(again, name) != getattr(signed, name))
