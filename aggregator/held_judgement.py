"""Judgements that rest on kept evidence only: close, decision and report name what is held.

Each is judged, what it rests on is kept, and it is judged again without what could not be kept
because its silo had taken it away. So nothing is kept that decides nothing, and nothing decides
that is not kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from aggregator.admission import SiloEvidence, judge, reached_quorum
from aggregator.coordinator import Coordinator
from aggregator.ledger import Exhibit, keep
from aggregator.publication import decide
from aggregator.report import Evidence, evidence_list, settled
from data_contracts.artifact import ArtifactRef
from data_contracts.envelope import Verified
from data_contracts.records import Candidate, Close, Decision, Evaluation, RoundPlan
from data_contracts.records.evidence_ref import EvidenceRef


def close_on_held(
    c: Coordinator, plan: Verified[RoundPlan], evidence: Sequence[SiloEvidence], now: datetime
) -> Close:
    """The close record; without a quorum nothing is kept.

    Without one silo another can be admitted (whose adapter was its copy), so this goes on until
    all that the close names is held.
    """
    done: set[tuple[str | None, str]] = set()
    while True:
        close = judge(plan, evidence, now)
        due = [ref for ref in close.held if _name(ref) not in done]
        if not due or not reached_quorum(close, plan.record):
            return close
        content = _content(close, evidence)
        kept = keep(c, plan, [Exhibit(ref, content[_name(ref)]) for ref in due])
        done |= {_name(ref) for ref in kept}
        lost = {ref.silo for ref in due if _name(ref) not in done}
        evidence = [_after(item, kept, is_lost=item.silo in lost) for item in evidence]


def decide_on_held(
    c: Coordinator,
    plan: Verified[RoundPlan],
    candidate: Verified[Candidate],
    evidence: Evidence,
) -> Decision:
    """The decision, on evaluations that are kept."""
    now = c.clock.now()
    evaluations, versions = dict(evidence.evaluations), evidence.versions
    used = decide(plan, candidate, evaluations, now, versions).evaluations
    exhibits = [
        Exhibit(
            EvidenceRef(
                kind=Evaluation.kind, silo=u.silo, digest=u.evaluation_digest, version=u.version
            ),
            evaluations[u.silo].envelope,
        )
        for u in used
    ]
    kept = {ref.silo: ref for ref in keep(c, plan, exhibits)}
    still = {silo: e for silo, e in evaluations.items() if silo in kept}
    return decide(plan, candidate, still, now, {r.digest: r.version for r in kept.values()})


def listed_and_held(c: Coordinator, evidence: Evidence) -> Evidence:
    """What a report will list, with what no close or decision has kept yet kept now."""
    evidence = settled(evidence)
    held = {_name(ref) for ref in evidence.close.record.held} if evidence.close else set()
    if evidence.decision is not None:
        used = evidence.decision.record.evaluations
        held |= {(item.silo, item.evaluation_digest) for item in used}
    due = [
        Exhibit(ref, envelope)
        for ref, envelope in evidence_list(evidence)
        if ref.silo is not None and _name(ref) not in held
    ]
    kept = keep(c, evidence.plan, due)
    lost = {_name(exhibit.ref) for exhibit in due} - {_name(ref) for ref in kept}
    versions = dict(evidence.versions) | {ref.digest: ref.version for ref in kept}
    return replace(
        evidence,
        acceptances=_without(evidence.acceptances, lost),
        refusals=_without(evidence.refusals, lost),
        verdicts=_without(evidence.verdicts, lost),
        submissions=_without(evidence.submissions, lost),
        evaluations=_without(evidence.evaluations, lost),
        versions=versions,
    )


def _name(ref: EvidenceRef) -> tuple[str | None, str]:
    """Two silos may hold the same blob."""
    return ref.silo, ref.digest


def _content(
    close: Close, evidence: Iterable[SiloEvidence]
) -> dict[tuple[str | None, str], bytes | ArtifactRef]:
    content: dict[tuple[str | None, str], bytes | ArtifactRef] = {
        (item.silo, verified.digest): verified.envelope
        for item in evidence
        for verified in item.verified()
    }
    return content | {(a.silo, a.adapter.digest): a.adapter for a in close.admitted}


def _after(item: SiloEvidence, kept: Iterable[EvidenceRef], *, is_lost: bool) -> SiloEvidence:
    if is_lost:
        return SiloEvidence(item.silo, withdrew=True)
    found = {ref.digest: ref.version for ref in kept if ref.silo == item.silo}
    return replace(item, versions=dict(item.versions) | found)


def _without(
    records: Mapping[str, Verified[Any]], lost: set[tuple[str | None, str]]
) -> dict[str, Verified[Any]]:
    return {silo: v for silo, v in records.items() if (silo, v.digest) not in lost}
