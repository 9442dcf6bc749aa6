"""A round of many silos, and the longest records that a plan can lead to."""

from decimal import Decimal
from typing import Any, Literal

import pytest

from aggregator.audit.report_audit import audit
from aggregator.decisions.stage import Stage
from aggregator.federated_round import advance
from aggregator.feed.reading import read_federation, read_report
from aggregator.report.files import read_bundle
from aggregator.settings.merge import MergeSection
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import seal, verify
from data_contracts.protocol.payload import MAX_TABLE_BYTES, canonical_bytes, table_bytes
from data_contracts.protocol.records import (
    Candidate,
    Close,
    Decision,
    Membership,
    RoundPlan,
    RoundReport,
)
from data_contracts.protocol.records.adapter_layout import AdapterTarget
from data_contracts.protocol.records.candidate import ModuleExactness, SiloInfluence
from data_contracts.protocol.records.close import Admitted
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.records.membership import EarlierMembership, Member
from data_contracts.protocol.records.round_report import SiloLosses, SiloSummary
from flows.round import wording
from tests.aggregator.federation_samples import federation as sample_federation
from tests.aggregator.federation_samples import key
from tests.aggregator.test_planning import drafted
from tests.data_contracts.record_samples import SAMPLES
from tests.simulator.fixtures import MakeFederation
from tests.simulator.silo import Behaviour

MOST_SILOS, MOST_MODULES = 1000, 2000
NAMES = tuple(f"hospital-of-city-{number:06d}" for number in range(MOST_SILOS))
DIGEST = "f" * 64
REF = ArtifactRef(digest=DIGEST, size=2**53 - 1)
LONG = Decimal("-999999999999999999.12345678901234567890")


@pytest.mark.long
@pytest.mark.parametrize(
    "silos",
    [80, pytest.param(1000, marks=[pytest.mark.campaign, pytest.mark.timeout(3000)])],
)
def test_many_silos_go_through_a_whole_round(make_federation: MakeFederation, silos: int) -> None:
    federation = make_federation({"quorum": silos})
    for number in range(silos):
        federation.add_silo(f"silo-{number:04d}", Behaviour.HONEST)
    federation.found()
    plan = federation.open()
    for _ in range(40):
        federation.silos_act()
        if advance(federation.coordinator(), plan) is Stage.REPORTED:
            break
    c = federation.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert report is not None and report.record.outcome == "published"
    assert [silo.outcome for silo in report.record.silos] == ["admitted"] * silos
    bundle = read_bundle(federation.settings.home / "reports" / "run-1-round-0001.html")
    assert [c.name for c in audit(bundle, federation.pinned) if c.outcome == "fail"] == []


@pytest.mark.parametrize(("asked", "is_estimated"), [("estimated", True), ("exact", False)])
def test_above_eight_silos_the_error_of_a_merge_is_an_estimate_and_says_so(
    make_federation: MakeFederation, asked: Literal["estimated", "exact"], is_estimated: bool
) -> None:
    federation = make_federation({"merge": MergeSection(error=asked), "quorum": 9})
    for number in range(9):
        federation.add_silo(f"silo-{number:04d}", Behaviour.HONEST)
    federation.found()
    plan = federation.open()
    federation.play(plan)
    candidate = federation.look(plan).attempt.candidate
    c = federation.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert candidate is not None and report is not None
    assert (candidate.record.error_interval is not None) == is_estimated
    assert (b"error_interval" in canonical_bytes(candidate.record)) == is_estimated
    assert report.record.error_interval == candidate.record.error_interval
    page = (federation.settings.home / "reports" / "run-1-round-0001.html").read_text()
    card = (federation.settings.home / "published" / "README.md").read_text()
    for text in (page, card, wording.merged(plan.record, candidate.record)):
        assert ("(estimated" in text) == is_estimated


def longest(kind: str, **rows: Any) -> Any:
    return SAMPLES[kind].model_copy(update=rows)


LOSSES = SiloLosses(base=LONG, starting=LONG, candidate=LONG, silo_only=LONG)
RULE, VERSION = "r" * 80, "v" * 128


def influence(silo: str) -> SiloInfluence:
    return SiloInfluence(
        silo=silo, influence=LONG, kept=LONG, norm=LONG, distance=LONG, alarm=False
    )


def longest_records() -> list[Close | Candidate | Decision | RoundReport]:
    """With every silo and module that a plan can have, each in its longest form."""
    admitted = tuple(
        Admitted(
            silo=silo,
            submission_digest=DIGEST,
            verdict_digest=DIGEST,
            adapter=REF,
            weight=2**53 - 1,
        )
        for silo in NAMES
    )
    modules = tuple(
        ModuleExactness(module=f"{'m' * 400}.{number}", discarded_energy=LONG, error=LONG)
        for number in range(MOST_MODULES)
    )
    used = tuple(
        EvidenceRef(kind="evaluation", silo=silo, digest=DIGEST, version=VERSION) for silo in NAMES
    )
    summaries = tuple(
        SiloSummary(
            silo=silo,
            outcome="rejected",
            rule=RULE,
            contract_digest=DIGEST,
            contract_passed=False,
            tokens=2**53 - 1,
            steps=2**53 - 1,
            weight_share=LONG,
            influence=influence(silo),
            losses=LOSSES,
        )
        for silo in NAMES
    )
    evidence = tuple(
        EvidenceRef(kind=RULE, silo=silo, digest=DIGEST, version=VERSION) for silo in NAMES * 8
    )
    return [
        longest("close", admitted=admitted, rejected=(), missing=(), held=evidence[:5000]),
        longest("candidate", modules=modules, influences=tuple(map(influence, NAMES))),
        longest("decision", evaluations=used, missing=NAMES),
        longest("round-report", silos=summaries, evidence=evidence),
    ]


@pytest.mark.parametrize("record", longest_records(), ids=lambda record: record.kind)
def test_the_longest_records_of_an_attempt_fit(
    record: Close | Candidate | Decision | RoundReport,
) -> None:
    table = table_bytes(record)
    assert table is not None and len(table) < MAX_TABLE_BYTES / 2
    assert len(canonical_bytes(record)) < record.max_payload_bytes / 10


def test_a_plan_and_a_membership_of_a_thousand_silos_fit() -> None:
    plan = sample_federation().plan.record
    pins = tuple(plan.contracts[0].model_copy(update={"silo": silo}) for silo in NAMES)
    many = plan.model_copy(update={"cohort": NAMES, "contracts": pins})
    planned = seal(RoundPlan.model_validate(dict(many)), key("coordinator"))
    coordinator = [key("coordinator").public_key_hex]
    assert verify(planned.envelope, RoundPlan, coordinator).record.cohort == NAMES
    members = tuple(Member(silo=silo, public_key=key(silo).public_key_hex) for silo in NAMES)
    sample = dict(SAMPLES["membership"])
    place = {
        "number": 1002,
        "previous_digest": DIGEST,
        "earlier": (EarlierMembership(digest=DIGEST, after_feed_number=2**40),) * 1000,
        "after_feed_number": 2**40,
        "after_feed_digest": DIGEST,
        "silos": members,
    }
    signed = seal(Membership.model_validate(sample | place), key("root"))
    assert verify(signed.envelope, Membership, [key("root").public_key_hex]).record.silos == members


def test_what_does_not_fit_is_said_when_the_plan_is_made() -> None:
    with pytest.raises(FederationOperatorError, match="a cohort of at most 1000 silos; found 1001"):
        drafted(silos=(*NAMES, "one-more"), members=(*NAMES, "one-more"))
    targets = tuple(
        AdapterTarget(module=f"{'m' * 600}.{number}", in_features=1, out_features=1)
        for number in range(MOST_MODULES)
    )
    with pytest.raises(FederationOperatorError, match=r"at most 1,048,576 bytes; found 1,3\d\d,"):
        drafted(targets=targets)
