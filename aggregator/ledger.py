"""The coordinator's own, object-locked copy of the evidence that its decisions rest on.

An inbox is its silo's to rewrite, the ledger is not. Copies are made before the record that names
them, so whatever a close or a decision names by digest can be read here for ever after.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from aggregator.admission import REVOKED_SILO
from aggregator.coordinator import Coordinator
from aggregator.transfers import several_at_a_time
from data_contracts.bucket_layout import attempt_of, digest_in_key, ledger_slot, record_key
from data_contracts.envelope import MAX_ENVELOPE_BYTES, Verified, verify
from data_contracts.records import (
    Acceptance,
    Close,
    Decision,
    Evaluation,
    Refusal,
    RoundPlan,
    SiloRecord,
    Submission,
    Verdict,
)
from data_contracts.records.close import Admitted
from data_contracts.trusted_feed import TrustedFeed
from infra.record_store import write_record

EQUIVOCATION = "silo.equivocation"
"""The reason for which there is no one record to copy."""

SiloRecordT = TypeVar("SiloRecordT", bound=SiloRecord)


@dataclass(frozen=True)
class SiloRecords:
    """What lies in one silo's inbox for this attempt; `equivocated` if a slot holds two records.

    `is_revoked`: the key that the plan's membership names for the silo does not count any more.
    """

    acceptance: Verified[Acceptance] | None = None
    refusal: Verified[Refusal] | None = None
    verdict: Verified[Verdict] | None = None
    submission: Verified[Submission] | None = None
    evaluation: Verified[Evaluation] | None = None
    equivocated: bool = False
    is_revoked: bool = False


def copy_judged(
    c: Coordinator,
    plan: Verified[RoundPlan],
    close: Close,
    silos: Mapping[str, SiloRecords],
    adapters: Mapping[str, Path],
) -> None:
    """Copy all that `close` rests on, blobs first; `adapters` are spooled files by digest.

    The bytes that were judged are sent, not copied within the storage: between judgement and copy
    a silo could have put others in their place.
    """

    def copy_blob(admitted: Admitted) -> None:
        c.ledger.put_blob(adapters[admitted.adapter.digest], admitted.adapter)

    def copy_records(silo: str) -> None:
        records = silos[silo]
        judged = (records.acceptance, records.refusal, records.verdict, records.submission)
        for verified in judged:
            if verified is not None:
                slot = ledger_slot(attempt_of(plan), silo, verified.record.kind)
                write_record(c.ledger, slot, verified)

    several_at_a_time(copy_blob, close.admitted)
    several_at_a_time(copy_records, _named_by(close))


def copy_evaluations(
    c: Coordinator, plan: Verified[RoundPlan], evaluations: Mapping[str, Verified[Evaluation]]
) -> None:
    """Copy the evaluations that a decision is about to name."""
    for silo, evaluation in evaluations.items():
        write_record(c.ledger, ledger_slot(attempt_of(plan), silo, Evaluation.kind), evaluation)


def judged_records(
    c: Coordinator,
    feed: TrustedFeed,
    plan: Verified[RoundPlan],
    close: Close,
    inboxes: Mapping[str, SiloRecords],
) -> dict[str, SiloRecords]:
    """What the close rests on, from the ledger; only evaluations still come from the inbox."""
    judged = {}
    for silo, digests in _named_by(close).items():
        reader = _Reader(c, plan, silo, feed.membership_of(plan).record.key_of(silo), digests)
        judged[silo] = SiloRecords(
            acceptance=reader.read(Acceptance),
            refusal=reader.read(Refusal),
            verdict=reader.read(Verdict),
            submission=reader.read(Submission),
            evaluation=inboxes[silo].evaluation,
            is_revoked=inboxes[silo].is_revoked,
        )
    return judged


def used_evaluations(
    c: Coordinator,
    feed: TrustedFeed,
    plan: Verified[RoundPlan],
    decision: Decision,
    records: Mapping[str, SiloRecords],
) -> dict[str, SiloRecords]:
    """`records` with the evaluations that the decision names, from the ledger."""
    result = {}
    for used in decision.evaluations:
        key = feed.membership_of(plan).record.key_of(used.silo)
        reader = _Reader(c, plan, used.silo, key, frozenset({used.evaluation_digest}))
        result[used.silo] = replace(records[used.silo], evaluation=reader.read(Evaluation))
    return result


def _named_by(close: Close) -> dict[str, frozenset[str]]:
    """Digests of the records that the close names, for each silo whose records it rests on."""
    named = {a.silo: frozenset({a.submission_digest, a.verdict_digest}) for a in close.admitted}
    named |= {r.silo: frozenset({r.record_digest}) for r in close.refused}
    return named | {
        r.silo: frozenset({r.submission_digest} if r.submission_digest else ())
        for r in close.rejected
        if r.rule not in (EQUIVOCATION, REVOKED_SILO)
    }


@dataclass(frozen=True)
class _Reader:
    """Reads one silo's copies.

    A coordinator that was killed between copy and close may have left copies of two judgements;
    the close names the ones that count, and for the rest the first by digest is as good as any.
    """

    coordinator: Coordinator
    plan: Verified[RoundPlan]
    silo: str
    key: str | None
    digests: frozenset[str]

    def read(self, record_type: type[SiloRecordT]) -> Verified[SiloRecordT] | None:
        ledger = self.coordinator.ledger
        slot = ledger_slot(attempt_of(self.plan), self.silo, record_type.kind)
        found = [digest_in_key(info.key) for info in ledger.list_keys(slot)]
        chosen = sorted((d not in self.digests, d) for d in found if d is not None)
        if not chosen or self.key is None:
            return None
        envelope = ledger.get(record_key(slot, chosen[0][1]), MAX_ENVELOPE_BYTES)
        return None if envelope is None else verify(envelope, record_type, {self.key})
