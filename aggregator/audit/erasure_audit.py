"""Offline audit of what was taken out again: of a certificate, and of a report whose adapter, or
whose start, an erasure revoked. Trust starts at the pinned membership, as for a report."""

from collections.abc import Sequence
from pathlib import Path

from aggregator.audit.claim import Claim, Finding
from aggregator.audit.signed_evidence import known_memberships
from aggregator.report.bundle import Bundle
from aggregator.report.compliance_page.page import Page
from aggregator.unlearning.certificate_page import RENDERER, CertificateFile, render
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.artifact import artifact_of_file, digest_of_bytes
from data_contracts.protocol.envelope import Verified, unverified_record, verify
from data_contracts.protocol.records import Erasure, ErasureCertificate, Membership, RoundPlan

NOT_REVOKED = "not revoked"
MEMBERSHIP, ERASURE, CERTIFICATE = "membership", "erasure signature", "certificate signature"
TOGETHER, PAGE, NEW_ADAPTER = "certificate follows the erasure", "page as signed", "new adapter"
UNCHECKED = Claim(
    "trained again without it",
    "not checked",
    "verify the reports of the rounds that it names: each says whose submissions counted",
)

Chain = dict[str, Verified[Membership]]


def audit_certificate(
    file: CertificateFile, page: Page, pinned: Verified[Membership], adapter: Path | None = None
) -> tuple[Claim, ...]:
    """Everything that a certificate can show offline. Never raises on what is in it."""
    names = (MEMBERSHIP, ERASURE, CERTIFICATE)
    claims: list[Claim] = []
    try:
        chain = known_memberships(Bundle(b"", (), file.memberships), pinned)
        claims.append(Claim(MEMBERSHIP, "pass", f"{len(chain)} known from the pinned one on"))
        erasure = verified_erasure(file.erasure, chain)
        claims.append(Claim(ERASURE, "pass", "signed by the coordinator of its membership"))
        keys = {m.record.coordinator_key for m in chain.values()} - _revoked_keys(chain)
        signed = verify(file.certificate, ErasureCertificate, keys)
        claims.append(Claim(CERTIFICATE, "pass", "signed by a coordinator of the federation"))
    except UntrustedInputError as error:
        claims.append(Claim(names[len(claims)], "fail", str(error)))
        return (*claims, UNCHECKED)
    return (
        *claims,
        Claim(TOGETHER, *_together(erasure, signed.record)),
        Claim(PAGE, *_page(erasure.record, signed.record, page)),
        Claim(NEW_ADAPTER, *_adapter(signed.record, adapter)),
        UNCHECKED,
    )


def verified_erasure(envelope: bytes, chain: Chain) -> Verified[Erasure]:
    """Signed with the key of the membership that it names, or where that is newer than all that
    are known, with that of the newest; raises UntrustedInputError."""
    claimed = unverified_record(envelope, Erasure)
    named = chain.get(claimed.membership_digest, list(chain.values())[-1])
    return verify(envelope, Erasure, {named.record.coordinator_key} - _revoked_keys(chain))


def revocation_claims(
    plan: RoundPlan, published: str | None, envelopes: Sequence[bytes], chain: Chain
) -> list[Claim]:
    """Whether erasures that the auditor has revoke a round's adapter, or what it started from.

    No claim without erasures. One that does not verify counts for nothing, and is told.
    """
    known: list[Verified[Erasure]] = []
    for envelope in envelopes:
        try:
            known.append(verified_erasure(envelope, chain))
        except UntrustedInputError as error:
            return [Claim(NOT_REVOKED, "not checked", f"an erasure does not verify: {error}")]
    if not known:
        return []
    return [Claim(NOT_REVOKED, *_revoked(plan, published, [each.record for each in known]))]


def _revoked(plan: RoundPlan, published: str | None, erasures: Sequence[Erasure]) -> Finding:
    for erasure in erasures:
        revoked = set(erasure.revoked)
        begun = plan.feed_number > erasure.feed_number
        if begun and not revoked.isdisjoint(ref.digest for ref in plan.starts):
            return "fail", f"it starts from what feed entry {erasure.feed_number} had revoked"
    for erasure in erasures:
        if published in erasure.revoked:
            return "fail", (
                f"its adapter was revoked by feed entry {erasure.feed_number}: the part of "
                f"{erasure.silo} was taken out, see run {erasure.replay_run}"
            )
    return "pass", f"neither its start nor its adapter, by {len(erasures)} erasures at hand"


def _revoked_keys(chain: Chain) -> set[str]:
    newest = list(chain.values())[-1].record
    return {entry.public_key for entry in newest.revoked}


def _together(erasure: Verified[Erasure], certificate: ErasureCertificate) -> Finding:
    record = erasure.record
    said = (certificate.erasure_digest, certificate.erased_silo, certificate.run, certificate.round)
    last = record.replayed[-1].round
    if said != (erasure.digest, record.silo, record.replay_run, last):
        return "fail", "it is about another erasure, or another round"
    old = [(each.round, each.published) for each in record.replayed]
    if [(each.round, each.old) for each in certificate.rounds] != old:
        return "fail", "it names other rounds than the erasure"
    new = {each.new for each in certificate.rounds}
    new |= {certificate.new_adapter.digest if certificate.new_adapter else None}
    if new & set(record.revoked):
        return "fail", "an adapter that is revoked is called new"
    return "pass", f"{len(old)} rounds, none of whose adapters is a revoked one"


def _page(erasure: Erasure, certificate: ErasureCertificate, page: Page) -> Finding:
    signed = certificate.page
    if signed is None or page.digest != signed.digest:
        return "fail", "its words are not those that the coordinator signed"
    if signed.renderer != RENDERER:
        return "pass", f"as signed; version {signed.renderer} made it, this is {RENDERER}"
    if digest_of_bytes(render(erasure, certificate)) != signed.digest:
        return "fail", "the coordinator signed another page than follows from the records"
    return "pass", "every byte that is shown is as signed, and follows from the records"


def _adapter(certificate: ErasureCertificate, adapter: Path | None) -> Finding:
    if adapter is None:
        return "not checked", "no adapter file was given"
    found = artifact_of_file(adapter)
    if found != certificate.new_adapter:
        return "fail", f"the file has digest {found.digest[:12]}, not that of the new adapter"
    return "pass", "the file is the adapter that holds from that round on"
