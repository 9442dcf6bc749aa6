"""Judgements that rest on kept evidence only: close, decision and report name what is held.

Each is judged, what it rests on is kept, and it is judged again without what could not be kept
because its silo had taken it away. So nothing decides that is not kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from aggregator.attempt import Attempt, SiloRecords
from aggregator.coordinator import Coordinator
from aggregator.decisions.admission import judge, reached_quorum
from aggregator.decisions.publication import decide
from aggregator.evidence.ledger import Exhibit, keep
from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Candidate, Close, Decision, RoundPlan, ShareBook
from data_contracts.protocol.records.evidence_ref import EvidenceRef


def close_on_held(
    c: Coordinator,
    plan: Verified[RoundPlan],
    silos: Sequence[SiloRecords],
    now: datetime,
    book: Verified[ShareBook] | None,
) -> Close:
    """The close record; without a quorum nothing is kept. `book`: of a masked plan.

    Without one silo another can be admitted (whose adapter was its copy), so this goes on until
    all that the close names is held.
    """
    done: set[tuple[str | None, str]] = set()
    while True:
        close = judge(plan, silos, now, book)
        due = [ref for ref in close.held if _name(ref) not in done]
        if not due or not reached_quorum(close, plan.record):
            return close
        content = _envelopes(silos) | {
            (a.silo, a.adapter.stored.digest): a.adapter.stored for a in close.admitted
        }
        is_encrypted = plan.record.encryption is not None
        kept = keep(c, plan, [Exhibit(ref, content[_name(ref)], is_encrypted) for ref in due])
        done |= {_name(ref) for ref in kept}
        lost = {ref.silo for ref in due if _name(ref) not in done}
        silos = [_after(own, kept, is_lost=own.silo in lost) for own in silos]


def decide_on_held(c: Coordinator, attempt: Attempt, candidate: Verified[Candidate]) -> Decision:
    """The decision, on evaluations that are kept."""
    now, silos = c.clock.now(), attempt.cohort()
    used, content = decide(attempt.plan, candidate, silos, now).evaluations, _envelopes(silos)
    exhibits = [Exhibit(ref, content[_name(ref)]) for ref in used]
    kept = {ref.silo: ref for ref in keep(c, attempt.plan, exhibits)}
    still = [_after(own, kept.values(), is_lost=own.silo not in kept) for own in silos]
    return decide(attempt.plan, candidate, still, now)


def listed_and_held(c: Coordinator, attempt: Attempt) -> Attempt:
    """What a report will list, with what no close or decision has kept yet kept now."""
    attempt = attempt.settled()
    held = {_name(ref) for ref in attempt.close.record.held} if attempt.close else set()
    if attempt.decision is not None:
        held |= {_name(ref) for ref in attempt.decision.record.evaluations}
    due = [
        Exhibit(ref, envelope)
        for ref, envelope in attempt.evidence()
        if ref.silo is not None and _name(ref) not in held
    ]
    kept = keep(c, attempt.plan, due)
    lost = {_name(exhibit.ref) for exhibit in due} - {_name(ref) for ref in kept}
    attempt = attempt.only(lambda silo, verified: (silo, verified.digest) not in lost)
    silos = {s: _after(own, kept, is_lost=False) for s, own in attempt.silos.items()}
    return replace(attempt, silos=silos)


def _name(ref: EvidenceRef) -> tuple[str | None, str]:
    """Two silos may hold the same blob."""
    return ref.silo, ref.digest


def _envelopes(silos: Iterable[SiloRecords]) -> dict[tuple[str | None, str], bytes | ArtifactRef]:
    return {(own.silo, v.digest): v.envelope for own in silos for v in own.records()}


def _after(own: SiloRecords, kept: Iterable[EvidenceRef], *, is_lost: bool) -> SiloRecords:
    """With the versions that are kept, or without anything where its silo withdrew."""
    if is_lost:
        return SiloRecords(own.silo, withdrew=True)
    found = {ref.digest: ref.version for ref in kept if ref.silo == own.silo}
    return replace(own, versions=dict(own.versions) | found)
