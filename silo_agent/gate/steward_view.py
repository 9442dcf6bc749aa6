"""What a check found, as a data steward reads it: exact counts, limits, rows, and what others hear.

A value without I/O but for `steward_view`, which reads the findings table and the data. All of it
is for people inside the silo: `told` says what of each rule the contract lets out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.suite.rule_details import BrokenRow, RuleDetail, SetDetails, set_details
from data_contracts.dataset.suite.rule_sentences import PRECONDITION, sentence
from data_contracts.protocol.records.verdict import LicenceCount, RuleOutcome
from silo_agent.gate.contract_gate import ContractGate
from silo_agent.gate.outcome import GateOutcome
from silo_agent.gate.row_names import RowNames, meaning_of_row
from silo_agent.gate.steward_figures import NO_FIGURES, StewardFigures
from silo_agent.release.egress import leaving_licences, leaving_outcomes

ROWS_PER_RULE = 20

RuleState = Literal["fails", "warns", "holds"]


@dataclass(frozen=True)
class ShownRow:
    """A row by its number and its record's id, why it is named, and the record it is like."""

    row: int
    record: str
    reason: str
    other: int | None
    other_record: str


@dataclass(frozen=True)
class ShownRule:
    """One rule in words; `more` rows break it than are listed in `rows`."""

    rule: str
    sentence: str
    state: RuleState
    found: str
    allowed: str
    told: str
    rows: tuple[ShownRow, ...] = ()
    more: int = 0

    @property
    def other_kind(self) -> str:
        """What the other record of a row is, for a rule about two records."""
        return "held-out" if self.rule == "split.no_leakage" else "earlier"


@dataclass(frozen=True)
class StewardView:
    """One check. `records` counts every row, readable or not; all counts are exact. `figures` are
    of earlier rounds."""

    silo: str
    federation: str
    contract: DataContract
    checked_at: datetime
    passed: bool
    records: int
    train_records: int
    heldout_records: int
    rules: tuple[ShownRule, ...]
    licences: tuple[LicenceCount, ...]
    row_meaning: str
    notes: tuple[str, ...] = ()
    repeated_ids: int = 0
    repeated_id_rows: tuple[ShownRow, ...] = ()
    figures: StewardFigures = NO_FIGURES

    @property
    def left_out(self) -> int:
        """Records that are neither trained on nor evaluated with."""
        return self.records - self.train_records - self.heldout_records

    def in_state(self, *states: RuleState) -> list[ShownRule]:
        """The rules that fail, warn or hold, in their order."""
        return [rule for rule in self.rules if rule.state in states]


@dataclass(frozen=True)
class _Found:
    """What the silo may read beside an outcome; nothing when no record was looked at."""

    details: SetDetails = field(default_factory=SetDetails)
    names: RowNames = field(default_factory=RowNames)


def steward_view(
    gate: ContractGate, outcome: GateOutcome, figures: StewardFigures = NO_FIGURES
) -> StewardView:
    """The view of `outcome`; reads the data once more where rows have to be named."""
    contract, found = gate.contract(), _found(gate, outcome)
    return StewardView(
        silo=gate.config.silo,
        federation=gate.config.federation,
        contract=contract,
        checked_at=gate.clock.now(),
        passed=outcome.passed,
        records=found.details.records,
        train_records=outcome.train_records,
        heldout_records=outcome.heldout_records,
        rules=_shown_rules(contract, outcome, found),
        licences=leaving_licences(outcome.licences, contract.terms.egress.allow),
        row_meaning=meaning_of_row(contract.source),
        notes=() if outcome.key else outcome.operator_notes,
        repeated_ids=found.details.repeated_ids,
        repeated_id_rows=_shown_rows(found.details.repeated_id_rows, found.names),
        figures=figures,
    )


def _found(gate: ContractGate, outcome: GateOutcome) -> _Found:
    findings = gate.findings(outcome)
    if findings is None or not findings.exists():
        return _Found()
    from data_contracts.dataset.findings.store import sqlite_url

    details = set_details(gate.contract(), sqlite_url(findings), ROWS_PER_RULE)
    return _Found(details, gate.row_names(details.keyed_ids))


def _shown_rules(
    contract: DataContract, outcome: GateOutcome, found: _Found
) -> tuple[ShownRule, ...]:
    details = {detail.rule: detail for detail in found.details.rules}
    leaving = leaving_outcomes(outcome.outcomes, contract.terms.egress.allow)
    return tuple(
        _shown_rule(
            rule,
            # A rule of the contract may have the name of a precondition.
            None if rule.type == PRECONDITION else details.get(rule.rule),
            found.names,
        )
        for rule in leaving
    )


def _shown_rule(rule: RuleOutcome, detail: RuleDetail | None, names: RowNames) -> ShownRule:
    rows = detail.rows if detail else ()
    return ShownRule(
        rule=rule.rule,
        sentence=sentence(rule.rule, rule.type),
        state=_state(rule),
        found=detail.found if detail else "",
        allowed=detail.allowed if detail else "",
        told=told_words(rule, counts_records=detail is not None and detail.counts_records),
        rows=_shown_rows(rows, names),
        more=detail.broken - len(rows) if detail else 0,
    )


def _state(rule: RuleOutcome) -> RuleState:
    if rule.success:
        return "holds"
    return "fails" if rule.severity == "critical" else "warns"


def told_words(rule: RuleOutcome, *, counts_records: bool) -> str:
    """What others hear of an outcome that leaves; small numbers are held back there, never here."""
    verdict = "holds" if rule.success else "fails"
    if not rule.element_count:
        return f"{verdict}, and no number"
    if not counts_records:
        return f"{verdict}, of {rule.element_count:,} records"
    if rule.unexpected_count is None:
        return f"{verdict}, of {rule.element_count:,}; how many is held back"
    return f"{verdict}, {rule.unexpected_count:,} of {rule.element_count:,}"


def _shown_rows(rows: Sequence[BrokenRow], names: RowNames) -> tuple[ShownRow, ...]:
    return tuple(
        ShownRow(
            row=row.row,
            record=names.ids.get(row.row, ""),
            reason=names.unreadable.get(row.row, row.reason),
            other=row.other,
            other_record=names.ids.get(row.other or 0, ""),
        )
        for row in rows
    )
