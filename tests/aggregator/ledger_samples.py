"""What the tests of the ledger ask of a federation, in memory or on a real storage."""

from aggregator.audit.report_audit import audit
from aggregator.feed.reading import read_federation, read_report
from aggregator.report.files import read_bundle
from data_contracts.protocol.bucket_layout import attempt_of, blob_key, record_key, round_slot
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan, RoundReport
from data_contracts.protocol.records.evidence_ref import LOCAL_ADAPTER, EvidenceRef
from tests.simulator.federation import SimulatedFederation

SILOS = ("silo-a", "silo-b", "silo-c")


def submitted(federation: SimulatedFederation) -> Verified[RoundPlan]:
    """The plan, when every silo has sent its submission."""
    plan = federation.open()
    federation.silos_act(4)
    return plan


def reported(federation: SimulatedFederation, plan: Verified[RoundPlan]) -> RoundReport:
    """Play on to the end; nothing that an auditor can check fails."""
    federation.play(plan)
    c = federation.coordinator()
    report = read_report(c, read_federation(c), plan)
    assert report is not None
    bundle = read_bundle(c.reports / "run-1-round-0001.json")
    assert [claim for claim in audit(bundle, federation.pinned) if claim.outcome == "fail"] == []
    return report.record


def key_of(plan: Verified[RoundPlan], ref: EvidenceRef) -> str:
    """Where a record or adapter lies in its silo's inbox."""
    if ref.kind == LOCAL_ADAPTER:
        return blob_key(ref.digest)
    return record_key(round_slot(attempt_of(plan), ref.kind), ref.digest)


def place_of(kind: str) -> str:
    """What the key of a silo's one record or blob of a kind contains."""
    return "blobs/" if kind == LOCAL_ADAPTER else f"/{kind}/"
