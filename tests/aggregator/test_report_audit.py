"""A clean bundle passes; whatever is changed, dropped, mixed or signed by others fails a claim."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from aggregator.attempt import RECORD_FIELDS, Attempt, SiloRecords
from aggregator.audit.claim import Claim
from aggregator.audit.report_audit import audit, holds
from aggregator.publishing.model_card import card_records, render_card
from aggregator.report.bundle import Bundle, bundle_of
from aggregator.report.compliance_page.page import RENDERER
from aggregator.report.limits import ENCRYPTED, READABLE
from aggregator.report.round_report import build_report
from data_contracts.protocol.artifact import ArtifactRef, StoredBytes
from data_contracts.protocol.envelope import Verified, seal
from data_contracts.protocol.membership_chain import earlier_after
from data_contracts.protocol.payload import canonical_bytes
from data_contracts.protocol.records import Close, Decision, Evaluation, Membership, RoundReport
from data_contracts.protocol.records.membership import Revocation
from data_contracts.protocol.records.merge_spec import MergeSpec
from data_contracts.protocol.records.plan_terms import AdapterEncryption, Retention
from data_contracts.protocol.records.round_report import InheritedLicence, PageRef
from tests.aggregator.federation_samples import (
    COHORT,
    Federation,
    adapter_ref,
    digest,
    federation,
    key,
    membership,
    minutes,
    plan,
)

FED = federation()
ROUND_RECIPIENT = "age1nat7cejv8tka8a3tuy0gnxl4e6vgdjxjwhkv3qurtg3muynhaf8qxymw3e"
OWN_RECIPIENT = "age19ajldxcml5enzu3agdpycjrh6942lus6vc5qkmwrg995pjry7eaqe68wvx"


def clean_evidence(fed: Federation = FED) -> Attempt:
    failed = fed.verdict("hospital-c", passed=False)
    return fed.finished(
        [
            fed.silo("bank-a"),
            fed.silo("hospital-b"),
            SiloRecords("hospital-c", acceptance=fed.acceptance("hospital-c"), verdict=failed),
        ]
    )


def audited(evidence: Attempt, report: Verified[RoundReport] | None = None) -> tuple[Claim, ...]:
    report = report or FED.report(evidence)
    return audit(bundle_of(report, evidence), FED.membership)


def failed(claims: tuple[Claim, ...]) -> list[str]:
    return [claim.name for claim in claims if claim.outcome == "fail"]


CLEAN = clean_evidence()
REPORT = FED.report(CLEAN)
BUNDLE = bundle_of(REPORT, CLEAN)


def test_a_clean_bundle_passes_and_says_what_it_cannot_show(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(b"adapter of candidate")
    claims = audit(BUNDLE, FED.membership, path)
    outcomes = {claim.name: claim.outcome for claim in claims}
    assert outcomes == {
        "membership": "pass",
        "report signature": "pass",
        "evidence complete": "pass",
        "evidence signatures": "pass",
        "coordinator key": "pass",
        "references": "pass",
        "data contracts agreed": "pass",
        "admission and weights": "pass",
        "merge as planned": "pass",
        "publication decision": "pass",
        "report follows from evidence": "pass",
        "page as signed": "not checked",
        "page follows from evidence": "pass",
        "published adapter": "pass",
        "adapter gate": "not checked",
        "no silo signed twice": "not checked",
        "no silo left out wrongly": "not checked",
        "merge arithmetic": "not checked",
        "evidence under lock": "not checked",
        "what institutions say of their data": "not checked",
    }
    assert holds(claims)
    assert len(claims) == len(outcomes)


def test_another_adapter_file_fails(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(b"adapter of somebody")
    assert failed(audit(BUNDLE, FED.membership, path)) == ["published adapter"]


def test_aborted_attempts_can_be_audited() -> None:
    silos = [FED.silo("bank-a"), SiloRecords("hospital-b", refusal=FED.refusal("hospital-b"))]
    before_close = FED.attempt(silos, abort=FED.abort())
    after_close = FED.attempt(silos, close=FED.close(silos), abort=FED.abort())
    assert failed(audited(before_close)) == []
    assert failed(audited(after_close)) == []


def test_rejected_silos_can_be_audited() -> None:
    silos = [
        FED.silo("bank-a", adapter_fault="adapter.not_finite"),
        FED.silo("hospital-b"),
        FED.silo("hospital-c"),
    ]
    assert failed(audited(FED.finished(silos))) == []
    silos[0] = FED.silo("bank-a", equivocated=True)
    assert failed(audited(FED.finished(silos))) == []


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_flipped_byte_goes_unnoticed(data: st.DataObject) -> None:
    envelopes = [BUNDLE.report, *BUNDLE.evidence]
    index = data.draw(st.integers(0, len(envelopes) - 1))
    changed = bytearray(envelopes[index])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    envelopes[index] = bytes(changed)
    claims = audit(Bundle(envelopes[0], tuple(envelopes[1:])), FED.membership)
    assert not holds(claims)


@pytest.mark.parametrize("field", sorted(RoundReport.model_fields))
def test_every_field_of_the_report_is_computed_again(field: str) -> None:
    """Signed by the real coordinator, so that only the recomputation can tell."""
    honest, other = REPORT.record, build_report(_other_evidence(), minutes(500))
    changes: dict[str, Any] = {
        "version": 1,
        "issued_at": honest.issued_at,
        "trust_mode": "confidential",
        "federation": "cardiology",
        "run": "run-two",
        "purpose": "Something else",
        "use": "commercial",
        "adapter_licence": _licensed_as("MIT"),
        "merge": MergeSpec(rule="average", weight_cap_tokens=1),
        "retention": Retention(mode="compliance", days=1),
        "error_interval": Decimal("0.001"),
        "step": Decimal("1.5"),
        "adapter_encryption": "age",
        "page": PageRef(renderer=RENDERER, digest=digest("another page")),
        "base_model": honest.base_model.model_copy(update={"name": "another"}),
    }
    value = changes.get(field, getattr(other, field))
    if value == getattr(honest, field):
        assert field in {"version", "issued_at"}  # constant, and the report's own statement
        return
    forged = seal(honest.model_copy(update={field: value}), key("coordinator"))
    assert not holds(audit(Bundle(forged.envelope, BUNDLE.evidence), FED.membership))


def test_encrypted_adapters_are_audited_without_a_key_and_told(tmp_path: Path) -> None:
    fed = federation(
        encryption=AdapterEncryption(
            round_recipient=ROUND_RECIPIENT, coordinator_recipient=OWN_RECIPIENT
        ),
        starting_adapter=_encrypted("start"),
    )

    def silo(name: str, **changes: Any) -> SiloRecords:
        fields = {"adapter": _encrypted(name), "sealed_key": "c2VhbGVk"}
        verdict = fed.verdict(name)
        return fed.silo(name, submission=fed.submission(name, verdict, **fields | changes))

    attempt = fed.finished([silo(name) for name in COHORT])
    assert attempt.close is not None
    held = {ref.digest for ref in attempt.close.record.held if ref.kind == "adapter"}
    assert held == {_encrypted(name).stored.digest for name in COHORT}
    bundle = fed.bundle(attempt)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(b"adapter of candidate")
    assert holds(audit(bundle, fed.membership, path))
    text = fed.page_text(attempt)
    assert "in storage adapters are encrypted (age), and whoever runs it reads none" in text
    assert ENCRYPTED in text and READABLE not in text
    plain_text = FED.page_text(CLEAN)
    assert "and whoever runs the storage, can see each" in plain_text and READABLE in plain_text
    card = render_card(card_records(bundle), None).decode()
    assert "| age files, which whoever ran the storage could not read |" in card
    # Nobody gets in with a blob that lies there otherwise than the plan says.
    for changes in ({"sealed_key": None}, {"adapter": adapter_ref("bank-a")}):
        others = [silo(name) for name in COHORT if name != "bank-a"]
        left_out = fed.finished([silo("bank-a", **changes), *others])
        assert left_out.close is not None
        (rejected,) = left_out.close.record.rejected
        assert (rejected.silo, rejected.rule) == ("bank-a", "adapter.not_encrypted")
        assert holds(audit(fed.bundle(left_out), fed.membership))
    sent = FED.submission("bank-a", FED.verdict("bank-a"), adapter=_encrypted("bank-a"))
    close = FED.close([FED.silo("bank-a", submission=sent), *map(FED.silo, COHORT[1:])])
    assert [item.rule for item in close.record.rejected] == ["adapter.encrypted"]


def test_what_a_plan_starts_from_is_stored_as_it_says() -> None:
    encryption = AdapterEncryption(
        round_recipient=ROUND_RECIPIENT, coordinator_recipient=OWN_RECIPIENT
    )
    for changes in ({"encryption": encryption}, {"starting_adapter": _encrypted("start")}):
        with pytest.raises(ValidationError, match="encrypted where its encryption says so"):
            federation(**changes)
    assert b"encryption" not in canonical_bytes(FED.plan.record)


def _encrypted(name: str) -> ArtifactRef:
    stored = StoredBytes(digest=digest(f"ciphertext of {name}"), size=300)
    return adapter_ref(name).model_copy(update={"ciphertext": stored})


def _licensed_as(expression: str) -> InheritedLicence:
    inherited = REPORT.record.adapter_licence
    assert inherited is not None
    return inherited.model_copy(update={"expression": expression})


def _other_evidence() -> Attempt:
    other = federation(round=3, attempt=2, starting_adapter=adapter_ref("older"))
    close = other.close([other.silo(silo) for silo in COHORT])
    candidate = other.candidate(
        close, adapter=adapter_ref("new"), discarded_energy=Decimal("0.2"), error=Decimal("0.4")
    )
    evaluations = {s: other.evaluation(s, candidate, candidate_loss=Decimal("9")) for s in COHORT}
    return other.attempt(
        [other.silo(silo) for silo in COHORT],
        close=close,
        candidate=candidate,
        evaluations=evaluations,
        decision=other.decision(candidate, evaluations),
    )


@pytest.mark.parametrize("index", range(len(BUNDLE.evidence)))
def test_dropping_or_doubling_any_evidence_fails(index: int) -> None:
    kept = BUNDLE.evidence[:index] + BUNDLE.evidence[index + 1 :]
    doubled = (*BUNDLE.evidence, BUNDLE.evidence[index])
    for evidence in (kept, doubled):
        claims = audit(Bundle(BUNDLE.report, evidence), FED.membership)
        assert failed(claims) == ["evidence complete"]


@pytest.mark.parametrize(
    "name",
    ["plan", "close", "candidate", "decision", "verdict", "submission", "acceptance"],
)
def test_evidence_of_another_round_cannot_be_mixed_in(name: str) -> None:
    """Even when the coordinator signs a report that lists the mixture."""
    foreign = clean_evidence(federation(round=3))
    if name in RECORD_FIELDS:
        silos = {
            silo: replace(own, **{name: getattr(foreign.of(silo), name)})
            for silo, own in CLEAN.silos.items()
        }
        mixed = replace(CLEAN, silos=silos)
    else:
        mixed = replace(CLEAN, **{name: getattr(foreign, name)})
    report = seal(_relisted(mixed), key("coordinator"))
    claims = audit(Bundle(report.envelope, tuple(_envelopes(mixed))), FED.membership)
    assert not holds(claims)


def test_other_keys_fail() -> None:
    stranger = seal(REPORT.record, key("stranger"))
    claims = audit(Bundle(stranger.envelope, BUNDLE.evidence), FED.membership)
    assert failed(claims) == ["report signature"]
    elsewhere = membership(coordinator_key=key("stranger").public_key_hex)
    assert failed(audit(BUNDLE, elsewhere)) == ["membership"]
    assert not holds(audit(Bundle(b"{}", ()), FED.membership))


def test_a_silo_s_record_signed_by_another_silo_fails() -> None:
    honest = CLEAN.of("bank-a").submission
    assert honest is not None
    forged = replace(CLEAN.of("bank-a"), submission=seal(honest.record, key("hospital-b")))
    evidence = replace(CLEAN, silos={**CLEAN.silos, "bank-a": forged})
    report = seal(_relisted(evidence), key("coordinator"))
    bundle = Bundle(report.envelope, tuple(_envelopes(evidence)))
    assert failed(audit(bundle, FED.membership)) == ["evidence signatures"]


def _relisted(evidence: Attempt) -> RoundReport:
    refs = tuple(ref for ref, _ in evidence.evidence())
    return REPORT.record.model_copy(update={"evidence": refs})


def _envelopes(evidence: Attempt) -> list[bytes]:
    return [envelope for _, envelope in evidence.evidence()]


def test_a_dishonest_close_fails() -> None:
    honest = CLEAN.close
    assert honest is not None
    heavier = honest.record.admitted[0].model_copy(update={"weight": 10**9})
    lists: list[dict[str, Any]] = [
        {"admitted": (heavier, honest.record.admitted[1])},
        {"admitted": honest.record.admitted[:1], "missing": ("hospital-b",)},
        {"admitted": honest.record.admitted[:1]},
        {"held": (*honest.record.held, honest.record.held[0])},
    ]
    for changes in lists:
        record = Close(**{**dict(honest.record), **changes})
        evidence = _with_close(seal(record, key("coordinator")))
        report = seal(_relisted(evidence), key("coordinator"))
        claims = audit(Bundle(report.envelope, tuple(_envelopes(evidence))), FED.membership)
        assert "admission and weights" in failed(claims)


def test_a_close_names_what_it_rests_on() -> None:
    honest = CLEAN.close
    assert honest is not None
    for ref in honest.record.held:
        fewer = tuple(other for other in honest.record.held if other != ref)
        if ref.kind == "acceptance":
            continue
        with pytest.raises(ValidationError, match="held must name"):
            Close(**{**dict(honest.record), "held": fewer})


def test_a_report_that_names_other_versions_than_the_close_fails() -> None:
    refs = [
        ref.model_copy(update={"version": "v2"}) if ref.kind == "submission" else ref
        for ref in REPORT.record.evidence
    ]
    forged = REPORT.record.model_copy(update={"evidence": tuple(refs)})
    bundle = Bundle(seal(forged, key("coordinator")).envelope, BUNDLE.evidence)
    assert failed(audit(bundle, FED.membership)) == ["report follows from evidence"]


def _with_close(close: Verified[Close]) -> Attempt:
    candidate = FED.candidate(close)
    evaluations = {silo: FED.evaluation(silo, candidate) for silo in COHORT[:2]}
    decision = FED.decision(candidate, evaluations)
    return _evaluated(evaluations, close=close, candidate=candidate, decision=decision)


def _evaluated(evaluations: dict[str, Verified[Evaluation]], **records: Any) -> Attempt:
    silos = {s: replace(own, evaluation=evaluations.get(s)) for s, own in CLEAN.silos.items()}
    return replace(CLEAN, silos=silos, **records)


def test_a_dishonest_decision_fails() -> None:
    honest = FED.finished([FED.silo(s) for s in COHORT], candidate_loss=Decimal("5"))
    assert honest.decision is not None
    record = Decision(
        **{
            **dict(honest.decision.record),
            "outcome": "published",
            "rule": "evaluation.not_worse",
            "published_adapter": adapter_ref("candidate"),
        }
    )
    evidence = replace(honest, decision=seal(record, key("coordinator")))
    assert failed(audited(evidence)) == ["publication decision"]


def test_a_merge_by_another_rule_than_the_plans_fails() -> None:
    close = CLEAN.close
    assert close is not None
    candidate = FED.candidate(close, merge_rule="average")
    evaluations = {a.silo: FED.evaluation(a.silo, candidate) for a in close.record.admitted}
    decision = FED.decision(candidate, evaluations)
    evidence = _evaluated(evaluations, candidate=candidate, decision=decision)
    assert failed(audited(evidence)) == ["merge as planned"]


def successor(before: Verified[Membership], **changes: Any) -> Verified[Membership]:
    return membership(
        **{
            "number": before.record.number + 1,
            "previous_digest": before.digest,
            "earlier": earlier_after(before),
        }
        | changes
    )


AFTER_THE_PLAN: dict[str, Any] = {
    "after_feed_number": 1,
    "after_feed_digest": digest("entry"),
}


class TestPinned:
    """The auditor has the membership of another year than the round's."""

    first = membership()
    second = successor(first)
    third = successor(second)
    fourth = successor(third, **AFTER_THE_PLAN)
    chain = (first, second, third, fourth)

    def bundle(self, under: Verified[Membership], known: int) -> Bundle:
        fed = Federation(under, seal(plan(under), key("coordinator")))
        evidence = clean_evidence(fed)
        chain = tuple(m.envelope for m in self.chain[:known])
        return bundle_of(fed.report(evidence), evidence, chain)

    @pytest.mark.parametrize("pinned", range(4))
    def test_any_version_of_the_chain_will_do(self, pinned: int) -> None:
        claims = audit(self.bundle(self.third, 3), self.chain[pinned])
        assert failed(claims) == []
        assert claims[0].detail.startswith("number 3, ")

    def test_an_older_one_needs_the_chain(self) -> None:
        bundle = replace(self.bundle(self.third, 3), memberships=(self.third.envelope,))
        assert failed(audit(bundle, self.first)) == ["membership"]
        assert failed(audit(bundle, self.fourth)) == []

    @pytest.mark.parametrize("pinned", [0, 2, 3])
    def test_a_version_that_nobody_signed_leads_nowhere(self, pinned: int) -> None:
        fake = seal(self.third.record, key("stranger"))
        fed = Federation(fake, seal(plan(fake), key("coordinator")))
        evidence = clean_evidence(fed)
        chain = (self.first.envelope, self.second.envelope, fake.envelope)
        bundle = bundle_of(fed.report(evidence), evidence, chain)
        assert failed(audit(bundle, self.chain[pinned])) == ["membership"]

    def test_a_newer_one_of_another_federation_is_not_enough(self) -> None:
        elsewhere = successor(self.third, federation="cardiology")
        other = successor(successor(membership(federation="cardiology")))
        assert failed(audit(self.bundle(self.third, 3), other)) == ["membership"]
        assert elsewhere.record.vouches_for(self.third.digest)

    def test_a_later_coordinator_may_have_signed_the_report(self) -> None:
        new_key = key("new").public_key_hex
        rotated = successor(self.first, coordinator_key=new_key, **AFTER_THE_PLAN)
        evidence = clean_evidence(FED)
        report = seal(build_report(evidence, REPORT.record.issued_at), key("new"))
        bundle = bundle_of(report, evidence, (self.first.envelope, rotated.envelope))
        assert failed(audit(bundle, self.first)) == []
        assert failed(audit(replace(bundle, memberships=()), self.first)) == ["report signature"]

    def test_a_coordinator_between_the_plan_s_and_the_pinned_one_too(self) -> None:
        """The pinned version names the one between by its digest; the bundle brings it."""
        keys = {name: key(name).public_key_hex for name in ("new", "newer")}
        between = successor(self.first, coordinator_key=keys["new"], **AFTER_THE_PLAN)
        newest = successor(between, coordinator_key=keys["newer"], **AFTER_THE_PLAN)
        evidence = clean_evidence(FED)
        report = seal(build_report(evidence, REPORT.record.issued_at), key("new"))
        chain = (self.first.envelope, between.envelope, newest.envelope)
        bundle = bundle_of(report, evidence, chain)
        assert failed(audit(bundle, newest)) == []
        assert failed(audit(replace(bundle, memberships=()), newest)) == ["report signature"]

    @pytest.mark.parametrize("pinned", [1, 3])
    def test_a_plan_outside_of_what_its_membership_governs_fails(self, pinned: int) -> None:
        """A membership that crossed with it made it void, or a rotated key went on planning."""
        second = successor(self.first)
        chain = (self.first, second, successor(second))
        fed = Federation(self.first, seal(plan(self.first), key("coordinator")))
        evidence = clean_evidence(fed)
        bundle = bundle_of(fed.report(evidence), evidence, tuple(m.envelope for m in chain))
        assert failed(audit(bundle, chain[pinned - 1])) == ["references"]

    @pytest.mark.parametrize(("after", "outcome"), [(0, "fail"), (1, "not checked")])
    def test_a_key_that_was_revoked_later_is_named(self, after: int, outcome: str) -> None:
        revoking = successor(
            self.first,
            coordinator_key=key("new").public_key_hex,
            revoked=(
                Revocation(public_key=key("coordinator").public_key_hex, last_feed_number=after),
            ),
            after_feed_number=after,
            after_feed_digest=digest("entry") if after else None,
        )
        claims = {claim.name: claim.outcome for claim in audit(BUNDLE, revoking)}
        assert claims["coordinator key"] == outcome
        assert claims["references"] == ("fail" if outcome == "fail" else "pass")
        renewed = successor(
            revoking,
            coordinator_key=key("new").public_key_hex,
            revoked=revoking.record.revoked,
            after_feed_number=after,
            after_feed_digest=revoking.record.after_feed_digest,
        )
        later = {claim.name: claim.outcome for claim in audit(BUNDLE, renewed)}
        assert later == claims, "also where the version that revoked it is not in the bundle"
        assert audit(BUNDLE, FED.membership)[4].outcome == "pass"


def test_a_plan_that_names_another_membership_fails() -> None:
    other = federation(membership_digest=digest("another membership"))
    evidence = clean_evidence(other)
    claims = audit(bundle_of(other.report(evidence), evidence), other.membership)
    assert failed(claims) == ["references"]
