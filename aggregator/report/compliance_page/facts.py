"""What the page says, taken from the report and the records that it lists, and from nothing else.

Records are read as they stand: whoever verifies the report verifies their signatures. So the facts,
like the report, are a pure function of the evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any

from aggregator.report.compliance_page.institution import Institution, SignedRecord
from aggregator.report.compliance_page.loss_change import LossRow, loss_row, mean_row
from aggregator.report.compliance_page.wording import DECISIONS, RECORDS
from data_contracts.protocol.dsse import fingerprint
from data_contracts.protocol.envelope import unverified_record
from data_contracts.protocol.records import (
    RECORD_TYPES,
    Abort,
    Close,
    Decision,
    Membership,
    RoundPlan,
    RoundReport,
)
from data_contracts.protocol.records.close import Likeness
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.records.privacy_terms import PrivacyStatement

Evidence = Sequence[tuple[EvidenceRef, bytes]]


@dataclass(frozen=True)
class Agreed:
    """Somebody put a signature under something; `until` is when it ends to count, if it does."""

    what: str
    who: str
    at: datetime
    until: datetime | None


@dataclass(frozen=True)
class PageFacts:
    """Everything that the page says."""

    report: RoundReport
    membership: Membership
    plan: RoundPlan
    institutions: tuple[Institution, ...]
    close: Close | None
    decision: Decision | None
    abort: Abort | None

    def name_of(self, silo: str) -> str:
        """The institution's name for people."""
        return self.membership.name_of(silo)

    @property
    def explanation(self) -> str:
        """The deciding rule's sentence; an abort's own reason where the rule is not known."""
        known = DECISIONS.get(self.report.rule, "")
        return known or (self.abort.reason if self.abort else "")

    @cached_property
    def losses(self) -> tuple[LossRow, ...]:
        """Of every institution that evaluated."""
        return tuple(loss_row(i.name, i.evaluation) for i in self.institutions if i.evaluation)

    @cached_property
    def mean_loss(self) -> LossRow | None:
        """The mean that decides."""
        return mean_row(self.losses) if self.losses else None

    @property
    def charged(self) -> list[tuple[Institution, PrivacyStatement]]:
        """What each private training was charged, as the institution signed it."""
        return [(own, own.summary.privacy) for own in self.institutions if own.summary.privacy]

    @property
    def largest_epsilon(self) -> tuple[Decimal, Decimal] | None:
        """Of this round and of all so far, over institutions that contributed; None without one."""
        counted = [s for own, s in self.charged if own.summary.outcome == "admitted"]
        if not counted:
            return None
        return max(s.epsilon for s in counted), max(s.epsilon_lifetime for s in counted)

    @property
    def copies(self) -> list[str]:
        """Whose changes are the same, and what a person decided about them."""
        decided = {entry.silo: entry.decision for entry in self.plan.counted_copies or ()}
        alike = (self.close.alike if self.close else None) or ()
        return [self._copy(found, decided.get(found.silo)) for found in alike]

    def _copy(self, found: Likeness, decision: str | None) -> str:
        like = self.name_of(found.like) if found.like else "the adapter that the round started from"
        said = f"{self.name_of(found.silo)}: its change is that of {like} (cosine {found.cosine})."
        counts = decision is not None and found.like is not None
        return f"{said} It counts by decision of the operator: {decision}" if counts else said

    @property
    def agreed(self) -> tuple[Agreed, ...]:
        """Who agreed to what, oldest first."""
        found = [self._membership(), self._plan()]
        for own in self.institutions:
            found += self._by(own)
        return tuple(sorted(found, key=lambda entry: (entry.at, entry.what, entry.who)))

    def _membership(self) -> Agreed:
        members, needed = self.membership, self.membership.root_threshold
        return Agreed(
            f"Membership number {members.number}: who belongs to the federation",
            f"the federation's root keys ({needed} of {len(members.root_keys)} sign)",
            members.issued_at,
            members.expires_at,
        )

    def _plan(self) -> Agreed:
        what = f"Plan of round {self.plan.round}, attempt {self.plan.attempt}"
        return Agreed(what, "the coordinator", self.plan.issued_at, self.plan.submit_by)

    def _by(self, own: Institution) -> list[Agreed]:
        found = []
        if own.agreement is not None:
            what = f"Data contract {own.agreement.contract_name or own.agreement.contract_id}, "
            what += f"version {own.agreement.contract_version}"
            at, until = own.agreement.issued_at, own.agreement.expires_at
            found.append(Agreed(what, f"{own.name} and the coordinator", at, until))
        if own.acceptance is not None:
            what = "Takes part in this round under its own policy"
            found.append(Agreed(what, own.name, own.acceptance.issued_at, None))
        if own.refusal is not None:
            what = "Does not take part in this round"
            found.append(Agreed(what, own.name, own.refusal.issued_at, None))
        return found

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Whose key has which fingerprint, in the membership that the plan names."""
        members = self.membership
        keys = [("root key", key) for key in members.root_keys]
        keys.append(("coordinator", members.coordinator_key))
        for own in self.institutions:
            key = members.key_of(own.summary.silo)
            keys += [(own.name, key)] if key else []
        return [(who, fingerprint(key)) for who, key in keys]

    @property
    def signed_records(self) -> list[tuple[str, str, str, str]]:
        """Kind, what it says, whose it is, digest."""
        own = {Membership.kind: "root keys"}
        return [
            (
                ref.kind,
                RECORDS.get(ref.kind, ""),
                self.name_of(ref.silo) if ref.silo else own.get(ref.kind, "coordinator"),
                ref.digest,
            )
            for ref in self.report.evidence
        ]


def page_facts(report: RoundReport, evidence: Evidence) -> PageFacts:
    """The facts of a report with all the evidence that it lists.

    Raises UntrustedInputError for what is no record of its kind, KeyError where plan or membership
    is not there.
    """
    own: dict[str, Any] = {}
    silos: dict[str, dict[str, SignedRecord]] = {}
    for ref, envelope in evidence:
        record = unverified_record(envelope, RECORD_TYPES[ref.kind])
        if ref.silo is None:
            own[ref.kind] = record
        else:
            silos.setdefault(ref.silo, {})[ref.kind] = SignedRecord(record, len(envelope))
    membership: Membership = own[Membership.kind]
    institutions = tuple(
        Institution(membership.name_of(s.silo), s, silos.get(s.silo, {})) for s in report.silos
    )
    return PageFacts(
        report,
        membership,
        own[RoundPlan.kind],
        institutions,
        own.get(Close.kind),
        own.get(Decision.kind),
        own.get(Abort.kind),
    )
