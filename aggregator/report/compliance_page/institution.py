"""One institution's part of a round, as its summary and its own records say it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from aggregator.report.compliance_page.wording import refusal_by_contract, rejection
from data_contracts.errors import UntrustedInputError
from data_contracts.protocol.dsse import from_base64
from data_contracts.protocol.envelope import unverified_record
from data_contracts.protocol.records import (
    Acceptance,
    ContractAgreement,
    Evaluation,
    Record,
    Refusal,
    Submission,
    Verdict,
)
from data_contracts.protocol.records.round_report import SiloSummary
from data_contracts.protocol.records.verdict import RuleOutcome

RecordT = TypeVar("RecordT", bound=Record)

LEAVES = (
    ("answer", (Acceptance.kind, Refusal.kind)),
    ("outcome of its contract", (Verdict.kind,)),
    ("training result", (Submission.kind,)),
    ("losses", (Evaluation.kind,)),
)
"""Kinds of what an institution signs, in the order in which it leaves; the adapter is no record."""

ANSWER_DOES_NOT_COUNT = ("cohort.", "silo.", "binding.")
"""Admission's rules about whose records they are: its answer may be to anything."""

AGREEMENT_NOT_JUDGED = (*ANSWER_DOES_NOT_COUNT, "acceptance.")
"""Admission's rules up to the one about agreements: what it carries may be anything."""


@dataclass(frozen=True)
class SignedRecord:
    """A record of the evidence and the size of its envelope in bytes."""

    record: Record
    size: int


@dataclass(frozen=True)
class Institution:
    """One silo's part: its summary in the report, and its own records by kind."""

    name: str
    summary: SiloSummary
    found: dict[str, SignedRecord] = field(default_factory=dict)

    def _own(self, record_type: type[RecordT]) -> RecordT | None:
        found = self.found.get(record_type.kind)
        return found.record if found and isinstance(found.record, record_type) else None

    def _rejected_by(self, rules: tuple[str, ...]) -> bool:
        return self.summary.outcome == "rejected" and (self.summary.rule or "").startswith(rules)

    @property
    def acceptance(self) -> Acceptance | None:
        """That it takes part, where that answers this plan."""
        return None if self._rejected_by(ANSWER_DOES_NOT_COUNT) else self._own(Acceptance)

    @property
    def refusal(self) -> Refusal | None:
        """That it does not, where that answers this plan."""
        return None if self._rejected_by(ANSWER_DOES_NOT_COUNT) else self._own(Refusal)

    @property
    def evaluation(self) -> Evaluation | None:
        """Its losses."""
        return self._own(Evaluation)

    @property
    def submission(self) -> Submission | None:
        """Its adapter by digest."""
        return self._own(Submission)

    @property
    def verdict(self) -> Verdict | None:
        """The outcome of its contract, where the report counts it as that."""
        return self._own(Verdict) if self.summary.contract_passed is not None else None

    @cached_property
    def agreement(self) -> ContractAgreement | None:
        """The agreement that its acceptance carries, where it was judged to be one."""
        carried = self.acceptance.agreement if self.acceptance else None
        if carried is None or self._rejected_by(AGREEMENT_NOT_JUDGED):
            return None
        try:
            return unverified_record(from_base64(carried), ContractAgreement)
        except UntrustedInputError:
            return None

    @property
    def why(self) -> str:
        """The rule's sentence, where it did not contribute."""
        rule = self.summary.rule
        if self.summary.outcome == "missing":
            return "Nothing counted had arrived when the round was closed."
        if rule is None:
            return ""
        if self.summary.outcome == "rejected":
            return rejection(rule)
        if self.refusal is not None and self.refusal.rule == rule:
            return f"It says: {self.refusal.reason}"
        return refusal_by_contract(rule)

    @property
    def outcomes(self) -> tuple[RuleOutcome, ...]:
        """Of every rule of its contract."""
        return self.verdict.outcomes if self.verdict else ()

    @property
    def broken(self) -> tuple[RuleOutcome, ...]:
        """Rules that do not hold."""
        return tuple(outcome for outcome in self.outcomes if not outcome.success)

    @property
    def held(self) -> tuple[RuleOutcome, ...]:
        """Rules that hold."""
        return tuple(outcome for outcome in self.outcomes if outcome.success)

    @property
    def sent(self) -> dict[str, int]:
        """Bytes that left it, by kind; the adapter's are those of the file that it submitted."""
        sizes = {kind: found.size for kind, found in self.found.items()}
        sent = {name: sum(sizes.get(kind, 0) for kind in kinds) for name, kinds in LEAVES}
        return sent | {"adapter": self.submission.adapter.size if self.submission else 0}
