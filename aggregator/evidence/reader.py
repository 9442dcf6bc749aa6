"""Reads an attempt from the buckets, verified."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from aggregator.attempt import Attempt, SiloRecords
from aggregator.coordinator import Coordinator
from aggregator.decisions.admission_rules import encryption_fault, is_too_large
from aggregator.decisions.carried_agreement import is_agreed
from aggregator.evidence.ledger import held_records
from aggregator.evidence.likeness import likenesses, require_change
from aggregator.evidence.opening import submitted_blob
from aggregator.evidence.sources import local_adapter, remembered, starting_source
from aggregator.evidence.spool import spool_blob, spool_submitted
from aggregator.evidence.transfers import several_at_a_time
from aggregator.feed.reading import abort_of, own_records
from data_contracts.adapters.change_sketch import Sketcher
from data_contracts.adapters.starting_adapter import AdapterSource
from data_contracts.adapters.submission_gate import check_submission
from data_contracts.confidential.payload import masked_size, require_masked
from data_contracts.dataset.contract.agreement import Parties
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.bucket_layout import attempt_of, blob_key, status_prefix
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    Acceptance,
    Candidate,
    Close,
    CountersignedClose,
    Decision,
    MaskRoster,
    RoundPlan,
    RoundReport,
    ShareBook,
    SiloRecord,
    Status,
    Submission,
)
from data_contracts.protocol.records.close import Likeness
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.trusted_feed import TrustedFeed
from infra.disk.blob_files import refused_blob
from infra.records.attempt_reader import SILO_TYPES
from infra.records.record_store import read_records
from infra.storage.object_store import UNREADABLE, is_unreadable_alone


def read_silo(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], silo: str
) -> SiloRecords:
    """Verified records of one silo; one whose key does not count, or counts no more, has none."""
    key = feed.silo_key(plan, silo)
    if key is None:
        named = feed.membership_of(plan).record.key_of(silo)
        return SiloRecords(silo, is_revoked=named is not None)
    reading = read_records(
        c.inbox(silo),
        attempt_of(plan),
        dict.fromkeys(SILO_TYPES, frozenset({key})),
        lambda verified: isinstance(verified.record, SiloRecord) and verified.record.silo == silo,
        c.seen,
    )
    found = ((reading.found(kind), reading.version(kind)) for kind in SILO_TYPES)
    members = feed.membership_of(plan).record
    parties = Parties.at_plan(members, (m.record for m in feed.memberships), silo)
    return replace(
        SiloRecords.found(silo, ((v, version) for v, version in found if v is not None)),
        is_agreed=is_agreed(reading.found(Acceptance), plan.record, parties),
        equivocated=bool(reading.equivocations()),
        is_newer=reading.is_newer,
    )


def read_attempt(
    c: Coordinator,
    feed: TrustedFeed,
    plan: Verified[RoundPlan],
    report: Verified[RoundReport] | None = None,
) -> Attempt:
    """All verified records of the attempt, the coordinator's and the silos'.

    Once the round is closed, what a silo was judged by is what the close holds, and once there is
    a `report`, what that lists: whatever else is in an inbox came too late.
    """
    own = own_records(c, feed, plan)
    close, candidate = own.found(Close), own.found(Candidate)
    decision = own.found(Decision)
    if report is not None:
        silos = _held(c, feed, plan, report.record.evidence)
    else:
        silos = {silo: read_silo(c, feed, plan, silo) for silo in plan.record.cohort}
        if close is not None:
            judged = _held(c, feed, plan, close.record.held)
            silos = {s: _as_judged(judged.get(s), inbox) for s, inbox in silos.items()}
        if candidate is not None and candidate.record.unmasking is not None:
            opened = _held(c, feed, plan, candidate.record.unmasking)
            silos = {s: _as_opened(r, opened.get(s)) for s, r in silos.items()}
        if decision is not None:
            used = _held(c, feed, plan, decision.record.evaluations)
            silos = {s: _as_decided(r, used.get(s)) for s, r in silos.items()}
    return Attempt(
        membership=feed.membership_of(plan),
        plan=plan,
        silos=silos,
        close=close,
        candidate=candidate,
        decision=decision,
        abort=abort_of(c, feed, plan),
        roster=own.found(MaskRoster),
        book=own.found(ShareBook),
        countersigned=own.found(CountersignedClose),
    )


def _held(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], refs: Iterable[EvidenceRef]
) -> dict[str, SiloRecords]:
    """As kept; signed with the keys of the plan's membership, whatever became of them since."""
    members = feed.membership_of(plan).record.silos
    return held_records(c, plan, refs, {member.silo: member.public_key for member in members})


def _as_judged(judged: SiloRecords | None, inbox: SiloRecords) -> SiloRecords:
    """Only what follows a close still comes from the inbox, and whether two sign as this silo."""
    judged = judged or SiloRecords(inbox.silo)
    return replace(
        judged,
        countersignature=inbox.countersignature,
        revealed_shares=inbox.revealed_shares,
        evaluation=inbox.evaluation,
        equivocated=inbox.equivocated,
        is_revoked=inbox.is_revoked,
        versions=dict(inbox.versions) | dict(judged.versions),
        # Of no weight: it only ends the wait for an evaluation that will not come.
        late_refusal=inbox.refusal if judged.refusal is None else None,
    )


def _as_opened(judged: SiloRecords, used: SiloRecords | None) -> SiloRecords:
    """With what opened the sum, and nothing that came beside it."""
    used = used or SiloRecords(judged.silo)
    return replace(
        judged,
        countersignature=used.countersignature,
        revealed_shares=used.revealed_shares,
        versions=dict(judged.versions) | dict(used.versions),
    )


def _as_decided(judged: SiloRecords, used: SiloRecords | None) -> SiloRecords:
    used = used or SiloRecords(judged.silo)
    versions = dict(judged.versions) | dict(used.versions)
    return replace(judged, evaluation=used.evaluation, versions=versions)


def read_status(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], silo: str
) -> Status | None:
    """The silo's newest signed status of this attempt; for display only."""
    key = feed.silo_key(plan, silo)
    if key is None:
        return None
    prefix = status_prefix(attempt_of(plan))
    status = c.statuses.read(c.inbox(silo), prefix, {key})
    return status.record if status is not None else None


def gated(c: Coordinator, attempt: Attempt) -> list[SiloRecords]:
    """The silos' records for admission; each submitted adapter is spooled and gated here.

    Raises UntrustedInputError when the coordinator's own starting adapter is not what its plan
    names: no silo is to be judged by that.
    """
    plan, start = attempt.plan, _start(c, attempt.plan)

    def judged(own: SiloRecords) -> SiloRecords:
        if own.submission is None:
            return own
        fault, version = _gated(c, plan, own.silo, own.submission, start)
        found = {} if fault else {own.submission.record.adapter.stored.digest: version}
        return replace(own, adapter_fault=fault, versions=dict(own.versions) | found)

    judged_silos = several_at_a_time(judged, attempt.cohort())
    alike = _likenesses(c, plan, judged_silos, start.starting)
    return [replace(own, alike=alike.get(own.silo)) for own in judged_silos]


def _likenesses(
    c: Coordinator,
    plan: Verified[RoundPlan],
    silos: Iterable[SiloRecords],
    starting: AdapterSource,
) -> dict[str, Likeness]:
    """Among the adapters that passed the gate; only those that may be copies are read again."""
    submitted = {own.silo: own.submission for own in silos if own.submission is not None}
    # Whose adapter did not pass has no sketch.
    sketches = {
        silo: sketch
        for silo, submission in submitted.items()
        if (sketch := c.arrivals.sketch((plan.digest, submission.digest, silo))) is not None
    }

    def source(silo: str) -> AdapterSource:
        blob = submitted_blob(c, plan.record, submitted[silo].record)
        path = spool_blob(c, c.inbox(silo), blob)
        return local_adapter(plan.record, silo, path, starting)

    return likenesses(sketches, source, starting)


def receive(c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], silo: str) -> str | None:
    """Spool and gate what a silo has submitted, so that the close need not wait for it.

    Returns the rule by which the gate refuses it as it is now. Nothing is judged: what does not
    pass is looked at again when the round closes.
    """
    submission = read_silo(c, feed, plan, silo).submission
    if submission is None:
        return None
    fault, _ = _gated(c, plan, silo, submission, _start(c, plan))
    return fault


def _start(c: Coordinator, plan: Verified[RoundPlan]) -> Sketcher:
    """What a plan's submissions are held against, read once for all that arrive."""
    return c.arrivals.start(plan.digest, lambda: remembered(starting_source(c, plan.record)))


def _gated(
    c: Coordinator,
    plan: Verified[RoundPlan],
    silo: str,
    submission: Verified[Submission],
    start: Sketcher,
) -> tuple[str | None, str | None]:
    """Why the submitted adapter cannot be admitted, or None, and its version in the inbox.

    Size is checked before bytes.
    """
    key = (plan.digest, submission.digest, silo)

    def gate() -> tuple[str | None, str | None]:
        masked = plan.record.masking is not None
        limit = masked_size(plan.record) if masked else plan.record.max_adapter_bytes
        if is_too_large(submission.record, limit):
            return "adapter.too_large", None
        if fault := encryption_fault(plan.record, submission.record):
            return fault, None
        try:
            path, version = _submitted(c, plan.record, submission.record)
            if masked:
                require_masked(path, plan, silo)
                return None, version
            source = local_adapter(plan.record, silo, path, start.starting)
            check_submission(source, start.starting, plan.record.recipe)
            sketch = start.sketch(source)
            require_change(sketch)
        except UntrustedInputError as error:
            return error.rule, None
        c.arrivals.keep_sketch(key, sketch)
        return None, version

    return c.arrivals.gated(key, gate)


def _submitted(c: Coordinator, plan: RoundPlan, submission: Submission) -> tuple[Path, str | None]:
    inbox, ref = c.inbox(submission.silo), submission.adapter.stored
    try:
        return spool_submitted(c, inbox, submitted_blob(c, plan, submission))
    except UNREADABLE as error:
        if not is_unreadable_alone(inbox, blob_key(ref.digest)):
            raise
        raise refused_blob(ref, error.found, "unreadable") from None
