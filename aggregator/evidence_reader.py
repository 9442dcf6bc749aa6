"""Reads the evidence of one attempt from the buckets, verified, and copies it to the ledger."""

from collections.abc import Sequence
from pathlib import Path

from aggregator.admission import SiloEvidence
from aggregator.coordinator import Coordinator
from aggregator.federation_feed import abort_of, own_records
from aggregator.ledger import SiloRecords, judged_records, used_evaluations
from aggregator.report import Evidence
from aggregator.transfers import several_at_a_time
from data_contracts.adapter_format import open_adapter
from data_contracts.artifact import ArtifactRef, artifact_of_file
from data_contracts.block_quantisation import SCHEMES
from data_contracts.bucket_layout import attempt_of, status_prefix
from data_contracts.envelope import Verified
from data_contracts.errors import UntrustedInputError
from data_contracts.quantised_format import open_quantised
from data_contracts.records import (
    Acceptance,
    Candidate,
    Close,
    Decision,
    Evaluation,
    Refusal,
    RoundPlan,
    SiloRecord,
    Status,
    Submission,
    Verdict,
)
from data_contracts.starting_adapter import AdapterSource, InitialAdapter
from data_contracts.submission_gate import check_submission
from data_contracts.trusted_feed import TrustedFeed
from infra.durable_files import keep_durably
from infra.object_store import Bucket
from infra.record_store import read_attempt

SILO_TYPES = (Acceptance, Refusal, Verdict, Submission, Evaluation)


def read_silo(
    c: Coordinator,
    feed: TrustedFeed,
    plan: Verified[RoundPlan],
    silo: str,
    *,
    also_revoked: bool = False,
) -> SiloRecords:
    """Verified records of one silo; one whose key does not count, or counts no more, has none.

    `also_revoked`: with the key of the plan's membership, whatever became of it since.
    """
    named = feed.membership_of(plan).record.key_of(silo)
    key = named if also_revoked else feed.silo_key(plan, silo)
    if key is None:
        return SiloRecords(is_revoked=named is not None)
    reading = read_attempt(
        c.inbox(silo),
        attempt_of(plan),
        dict.fromkeys(SILO_TYPES, frozenset({key})),
        lambda verified: isinstance(verified.record, SiloRecord) and verified.record.silo == silo,
        c.seen,
    )
    return SiloRecords(
        acceptance=reading.found(Acceptance),
        refusal=reading.found(Refusal),
        verdict=reading.found(Verdict),
        submission=reading.found(Submission),
        evaluation=reading.found(Evaluation),
        equivocated=bool(reading.equivocations()),
    )


def read_evidence(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], *, also_revoked: bool = False
) -> tuple[Evidence, dict[str, SiloRecords]]:
    """All verified records of the attempt, the coordinator's and the silos'.

    Once the round is closed, what a silo was judged by is read from the ledger: its inbox is the
    silo's to rewrite, the ledger is not.
    """
    own = own_records(c, feed, plan)
    close, decision = own.found(Close), own.found(Decision)
    silos = {
        silo: read_silo(c, feed, plan, silo, also_revoked=also_revoked)
        for silo in plan.record.cohort
    }
    if close is not None:
        silos |= judged_records(c, feed, plan, close.record, silos)
    if decision is not None:
        silos |= used_evaluations(c, feed, plan, decision.record, silos)
    evidence = Evidence(
        membership=feed.membership_of(plan),
        plan=plan,
        acceptances={s: r.acceptance for s, r in silos.items() if r.acceptance},
        refusals={s: r.refusal for s, r in silos.items() if r.refusal},
        verdicts={s: r.verdict for s, r in silos.items() if r.verdict},
        submissions={s: r.submission for s, r in silos.items() if r.submission},
        evaluations={s: r.evaluation for s, r in silos.items() if r.evaluation},
        close=close,
        candidate=own.found(Candidate),
        decision=decision,
        abort=abort_of(c, feed, plan),
    )
    return evidence, silos


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


def admission_evidence(
    c: Coordinator, plan: Verified[RoundPlan], silos: dict[str, SiloRecords]
) -> list[SiloEvidence]:
    """Evidence for the admission rules; each submitted adapter is spooled and gated here.

    Raises UntrustedInputError when the coordinator's own starting adapter is not what its plan
    names: no silo is to be judged by that.
    """
    starting = starting_source(c, plan.record)

    def judged(silo: str) -> SiloEvidence:
        records = silos[silo]
        return SiloEvidence(
            silo=silo,
            acceptance=records.acceptance,
            refusal=records.refusal,
            verdict=records.verdict,
            submission=records.submission,
            equivocated=records.equivocated,
            is_revoked=records.is_revoked,
            adapter_fault=_adapter_fault(c, plan, silo, records.submission, starting),
        )

    return several_at_a_time(judged, sorted(silos))


def spool(c: Coordinator, bucket: Bucket, ref: ArtifactRef) -> Path:
    """A blob on local disk under its digest, verified; downloaded once."""
    path = spool_path(c, ref)
    if not path.exists() or artifact_of_file(path) != ref:
        path.parent.mkdir(parents=True, exist_ok=True)
        bucket.download_blob(ref, path)
    return path


def starting_source(c: Coordinator, plan: RoundPlan) -> AdapterSource:
    """The adapter that silos of the plan start from, in the run's layout."""
    if plan.starting_adapter is None:
        return InitialAdapter(plan.adapter)
    return open_adapter(spool(c, c.plans, plan.starting_adapter), plan.adapter)


def local_adapter(plan: RoundPlan, silo: str, path: Path, starting: AdapterSource) -> AdapterSource:
    """A submitted file in the layout that the plan gives its silo, decoded module by module.

    `starting` is what the plan's silos start from. Raises UntrustedInputError when the header of
    the file does not pass the gate.
    """
    spec = plan.adapter_of(silo)
    if plan.compression == "none":
        return open_adapter(path, spec)
    return open_quantised(path, spec, SCHEMES[plan.compression], starting)


def spool_all(c: Coordinator, bucket: Bucket, refs: Sequence[ArtifactRef]) -> list[Path]:
    """As `spool`, several at a time; whole objects, because small ranged reads are slow."""
    return several_at_a_time(lambda ref: spool(c, bucket, ref), refs)


def spool_own(c: Coordinator, file: Path, ref: ArtifactRef) -> None:
    """Take a file that the coordinator made, and that is `ref`, for what `spool` would fetch."""
    keep_durably(file, spool_path(c, ref))


def spool_path(c: Coordinator, ref: ArtifactRef) -> Path:
    """Where `spool` keeps a blob."""
    return c.workspace / "spool" / f"{ref.digest}.safetensors"


def _adapter_fault(
    c: Coordinator,
    plan: Verified[RoundPlan],
    silo: str,
    submission: Verified[Submission] | None,
    starting: AdapterSource,
) -> str | None:
    """Why the submitted adapter cannot be admitted, or None; size is checked before bytes."""
    if submission is None:
        return None
    ref = submission.record.adapter
    if ref.size > plan.record.max_adapter_bytes:
        return "adapter.too_large"
    try:
        path = spool(c, c.inbox(silo), ref)
        source = local_adapter(plan.record, silo, path, starting)
        check_submission(source, starting, plan.record.recipe)
    except UntrustedInputError as error:
        return error.reason
    return None
