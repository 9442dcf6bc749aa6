"""One attempt of a round, as its signed records show it: the one value that the steps work on."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    Abort,
    Acceptance,
    Candidate,
    Close,
    Countersignature,
    CountersignedClose,
    Decision,
    Evaluation,
    MaskKeys,
    MaskRoster,
    Membership,
    Refusal,
    RevealedShares,
    RoundPlan,
    SealedShares,
    ShareBook,
    Submission,
    Verdict,
)
from data_contracts.protocol.records.close import Likeness
from data_contracts.protocol.records.evidence_ref import EvidenceRef

RECORD_FIELDS = (
    "acceptance",
    "refusal",
    "verdict",
    "mask_keys",
    "sealed_shares",
    "submission",
    "countersignature",
    "revealed_shares",
    "evaluation",
)
AFTER_CLOSE = ("countersignature", "revealed_shares", "evaluation")
"""What silos say on the close or on what follows from it, so that no close judges it."""


def field_of(verified: Verified[Any]) -> str:
    """The field of `SiloRecords` for a record of this kind, if there is one."""
    kind: str = verified.record.kind
    return kind.replace("-", "_")


@dataclass(frozen=True)
class SiloRecords:
    """What counts of one silo's verified records, and what the coordinator saw beside them.

    `is_revoked`: its key counts no more, so nothing was read. `equivocated`: two valid records lay
    in one slot. `withdrew`: something that was read was gone, or locked by somebody else, before it
    could be kept, so none of its records count. `is_agreed`: what its acceptance carries is the
    agreement to the pinned contract, with both signatures. `adapter_fault`: the rule of the gate
    that refused the blob, such as `adapter.not_finite`, or None. `versions`: of records and adapter
    in the silo's inbox, by digest. `is_newer`: a later release signed what this one cannot read.
    `alike`: whose change its own is a copy of, or it of this one's.
    `told_less`: what its verdict says of lifetime totals is less than what it signed for an earlier
    plan. `late_refusal`: one that came after the close, which it changes nothing about; no
    evaluation is waited for.
    """

    silo: str
    acceptance: Verified[Acceptance] | None = None
    refusal: Verified[Refusal] | None = None
    verdict: Verified[Verdict] | None = None
    mask_keys: Verified[MaskKeys] | None = None
    sealed_shares: Verified[SealedShares] | None = None
    submission: Verified[Submission] | None = None
    countersignature: Verified[Countersignature] | None = None
    revealed_shares: Verified[RevealedShares] | None = None
    evaluation: Verified[Evaluation] | None = None
    equivocated: bool = False
    is_revoked: bool = False
    withdrew: bool = False
    is_agreed: bool = True
    is_newer: bool = False
    adapter_fault: str | None = None
    told_less: bool = False
    alike: Likeness | None = None
    late_refusal: Verified[Refusal] | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def found(cls, silo: str, records: Iterable[tuple[Verified[Any], str | None]]) -> "SiloRecords":
        """From verified records, each with its version; those of other kinds are passed over."""
        kept = [(v, version) for v, version in records if field_of(v) in RECORD_FIELDS]
        by_kind: dict[str, Any] = {field_of(v): v for v, _ in kept}
        return cls(silo, **by_kind, versions={v.digest: version for v, version in kept})

    def reference(self, verified: Verified[Any]) -> EvidenceRef:
        """To a record of this silo, with its version in the inbox where it has one."""
        return reference(verified, self.silo, self.versions.get(verified.digest))

    def records(self) -> tuple[Verified[Any], ...]:
        """All that exist, in the order of `RECORD_FIELDS`."""
        found = (getattr(self, name) for name in RECORD_FIELDS)
        return tuple(verified for verified in found if verified is not None)

    def judged(self) -> tuple[Verified[Any], ...]:
        """Those that a close judges."""
        return tuple(v for v in self.records() if field_of(v) not in AFTER_CLOSE)

    @property
    def has_declined(self) -> bool:
        """Whether it takes part no more: a refusal, a failed contract, or two records in a slot."""
        failed = self.verdict is not None and not self.verdict.record.passed
        refused = self.refusal is not None or self.late_refusal is not None
        return failed or self.equivocated or refused

    def only(self, counts: Callable[[Verified[Any]], bool]) -> "SiloRecords":
        """Without the records that do not count."""
        found = {name: getattr(self, name) for name in RECORD_FIELDS}
        gone: dict[str, Any] = {
            n: None for n, v in found.items() if v is not None and not counts(v)
        }
        return replace(self, **gone)


UNMASKING_KINDS = (Countersignature.kind, RevealedShares.kind)
"""What silos say between the close and the candidate of a masked sum."""


@dataclass(frozen=True)
class Attempt:
    """All verified records of one attempt; `silos` by id, a silo without records may be absent.

    `roster`, `book` and `countersigned` are what the coordinator passes on in confidential mode.
    """

    membership: Verified[Membership]
    plan: Verified[RoundPlan]
    silos: Mapping[str, SiloRecords]
    roster: Verified[MaskRoster] | None = None
    book: Verified[ShareBook] | None = None
    close: Verified[Close] | None = None
    countersigned: Verified[CountersignedClose] | None = None
    candidate: Verified[Candidate] | None = None
    decision: Verified[Decision] | None = None
    abort: Verified[Abort] | None = None

    def of(self, silo: str) -> SiloRecords:
        """The silo's records, none where nothing of it is there."""
        return self.silos.get(silo) or SiloRecords(silo)

    def cohort(self) -> tuple[SiloRecords, ...]:
        """Of every silo that the plan asks, sorted."""
        return tuple(self.of(silo) for silo in sorted(self.plan.record.cohort))

    def only(self, counts: Callable[[str, Verified[Any]], bool]) -> "Attempt":
        """Without the silos' records that do not count."""

        def counting(records: SiloRecords) -> SiloRecords:
            return records.only(lambda verified: counts(records.silo, verified))

        return replace(self, silos={s: counting(r) for s, r in self.silos.items()})

    def settled(self) -> "Attempt":
        """Without the records that arrived too late to be part of the attempt.

        A close holds all that it was judged on, a candidate names what opened its sum, and a
        decision its evaluations.
        """
        attempt = self
        if self.close is not None:
            held = {(ref.silo, ref.digest) for ref in self.close.record.held}
            attempt = attempt.only(
                lambda silo, v: (silo, v.digest) in held or field_of(v) in AFTER_CLOSE
            )
        if self.candidate is not None:
            opening = {ref.digest for ref in self.candidate.record.unmasking or ()}
            attempt = attempt.only(
                lambda _, v: v.digest in opening or v.record.kind not in UNMASKING_KINDS
            )
        if self.decision is not None:
            used = {ref.digest for ref in self.decision.record.evaluations}
            attempt = attempt.only(
                lambda _, v: v.digest in used or v.record.kind != Evaluation.kind
            )
        return attempt

    def evidence(self) -> list[tuple[EvidenceRef, bytes]]:
        """Reference and envelope of every record: the coordinator's, then by kind and silo."""
        steps = (
            self.roster,
            self.book,
            self.close,
            self.countersigned,
            self.candidate,
            self.decision,
            self.abort,
        )
        own = (self.membership, self.plan, *(step for step in steps if step is not None))
        entries = [(reference(verified), verified.envelope) for verified in own]
        for name in RECORD_FIELDS:
            for _, records in sorted(self.silos.items()):
                if (verified := getattr(records, name)) is not None:
                    entries.append((records.reference(verified), verified.envelope))
        return entries


def reference(
    verified: Verified[Any], silo: str | None = None, version: str | None = None
) -> EvidenceRef:
    """To a record, the coordinator's where it is no silo's; `version` in the silo's inbox."""
    return EvidenceRef(
        kind=verified.record.kind, silo=silo, digest=verified.digest, version=version
    )
