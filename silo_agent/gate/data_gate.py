"""The data gate: no record is trained on unless the silo's data contract allows it.

`check_data` answers in this order: the contract has not expired, every registry that it names is
there and in force, the data can be read and lie inside the data root, and then every rule of the
contract over one pass of findings. What is wrong with the data is a failing outcome, never an
exception. An outcome is kept: the same data under the same contract and registries are not looked
at again, and Great Expectations is not even imported.
`outcomes`, `licences` and the digests may leave the silo; `operator_notes` may not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.findings.version import detectors_version
from data_contracts.dataset.small_cells import SMALL_CELL, reported_licences
from data_contracts.dataset.sources.data_source import DataUnavailableError
from data_contracts.protocol.artifact import digest_of_bytes
from data_contracts.protocol.records.verdict import MAX_LICENCES, LicenceCount, RuleOutcome
from infra.processes.heavy_imports import collector_paused
from silo_agent.gate.outcome import GateOutcome, KeptOutcomes, Looked, OutcomeKey
from silo_agent.gate.registries import ReferencesError, SiloReferences
from silo_agent.gate.silo_data import SiloData

NOT_LOOKED_AT = digest_of_bytes(b"")
"""Findings digest of a data set that was not looked at."""

OutcomeT = TypeVar("OutcomeT", bound=GateOutcome | None)

if TYPE_CHECKING:
    from data_contracts.dataset.findings.collect import Findings

FAILURE_KEPT = timedelta(days=1)
"""How long a failing outcome is given again without another look."""

Progress = Callable[[int], None]
"""Called with the number of records that have been looked at."""


@dataclass(frozen=True)
class DataCheck:
    """Everything that a check looks at.

    `findings_key` is the silo's own secret of at least 32 bytes; `baseline` is the profile of the
    last accepted round, if there was one; `now` is an aware datetime.
    """

    contract: DataContract
    data: SiloData
    references: SiloReferences
    kept: KeptOutcomes
    findings_key: bytes
    now: datetime
    baseline: bytes | None = None


def kept_outcome(check: DataCheck) -> GateOutcome | None:
    """What `check_data` would say without looking at a record; None when it would have to look."""
    return _judged(check, lambda: _kept(check, _key(check)))


def check_data(check: DataCheck, progress: Progress = lambda records: None) -> GateOutcome:
    """Judge the contract's data; raises DataStewardError only when a rule cannot be evaluated."""

    def judge() -> GateOutcome:
        key = _key(check)
        return _kept(check, key) or _looked(check, key, progress)

    return _judged(check, judge)


def _judged(check: DataCheck, judge: Callable[[], OutcomeT]) -> OutcomeT | GateOutcome:
    """What `judge` says, unless a precondition of the check does not hold; with them in front."""
    contract = check.contract
    held = [_precondition("contract.current", contract.is_current(check.now))]
    if not contract.is_current(check.now):
        note = f"contract {contract.id} expired at {contract.terms.expires:%Y-%m-%dT%H:%M:%SZ}"
        return _failed(contract, held, note)
    try:
        outcome = judge()
    except ReferencesError as error:
        held.append(_precondition("copyright.registries", False))
        return _failed(contract, held, str(error))
    except DataUnavailableError as error:
        held.append(_precondition("copyright.registries", True))
        held.append(_precondition("data.available", False))
        return _failed(contract, held, str(error))
    held.append(_precondition("copyright.registries", True))
    held.append(_precondition("data.available", True))
    return outcome if outcome is None else outcome.with_preconditions(held)


def _key(check: DataCheck) -> OutcomeKey:
    """What decides the outcome, as it is there now."""
    return OutcomeKey(
        contract_digest=check.contract.digest,
        references_digest=check.references.fingerprint(),
        content_digest=check.data.content_digest(),
        version=detectors_version(),
    )


def _kept(check: DataCheck, key: OutcomeKey) -> GateOutcome | None:
    retention = timedelta(days=check.contract.terms.retention.days)
    check.kept.forget_unused(retention, but=key.digest)
    return check.kept.get(key, check.baseline, check.now)


def _looked(check: DataCheck, key: OutcomeKey, progress: Progress) -> GateOutcome:
    """A new outcome, which is kept."""
    looked = _look(check, key, progress)
    if check.data.content_digest() != key.content_digest:
        raise DataUnavailableError(check.contract.source.path, "it changed during the check")
    check.kept.put(key, looked, check.baseline)
    return looked.outcome


def _look(check: DataCheck, key: OutcomeKey, progress: Progress) -> Looked:
    """One pass over the data, and the suite on what was found."""
    # Imported here because all of it takes seconds to load and an unchanged set needs none.
    with collector_paused():
        from data_contracts.dataset.findings.checks import Checks
        from data_contracts.dataset.findings.collect import collect_findings
        from data_contracts.dataset.findings.profile import Profile
        from data_contracts.dataset.findings.store import sqlite_url
        from data_contracts.dataset.suite.expectations import evaluate

    contract = check.contract
    references = check.references.load(check.now)
    check.kept.clear_unfinished(key.digest)
    findings = collect_findings(
        check.data.records(),
        Checks(contract, references, check.now, check.data.stated_licence()),
        check.findings_key,
        check.kept.new_findings_path(key.digest),
        previous=Profile.from_json(check.baseline) if check.baseline else None,
        progress=progress,
    )
    outcomes = (*evaluate(contract, sqlite_url(findings.path)), _few_licences(findings.licence_ids))
    passed = all(outcome.success for outcome in outcomes if outcome.severity == "critical")
    limits = (
        contract.terms.expires,
        references.expires_at(),
        findings.evidence_until,
        # What failed is looked at again: its reason can pass, as a date in the future does.
        None if passed else check.now + FAILURE_KEPT,
    )
    outcome = GateOutcome(
        passed=passed,
        outcomes=outcomes,
        licences=_licences(findings),
        findings_digest=findings.digest,
        contract_digest=contract.digest,
        expires_at=min(limit for limit in limits if limit is not None),
        operator_notes=findings.notes,
        train_records=findings.train_records,
        heldout_records=findings.heldout_records,
        records=findings.records,
        escalated=findings.escalated,
        train_subjects=_subjects(contract, findings),
        content_digest=key.content_digest,
        key=key.digest,
    )
    return Looked(outcome, findings.path, findings.profile.model_dump_json().encode())


def _subjects(contract: DataContract, findings: "Findings") -> int | None:
    """Pictures without a subject of their own stand for one each, so subjects that none shares are
    not known to be people."""
    found = findings.train_subjects
    stated = contract.source.format != "image-text" or found < findings.train_records
    return found if stated else None


def _few_licences(licence_ids: dict[str, int]) -> RuleOutcome:
    """A verdict has room for so many licences, and so has whoever reads it."""
    return _precondition("licence.count", len(licence_ids) <= MAX_LICENCES)


def _licences(findings: "Findings") -> tuple[LicenceCount, ...]:
    """Records per licence; without counts where few unreadable rows would follow from them."""
    if len(findings.licence_ids) > MAX_LICENCES:
        return ()
    counts = reported_licences(findings.licence_ids)
    if not 0 < findings.unreadable < SMALL_CELL:
        return counts
    return tuple(count.model_copy(update={"records": None}) for count in counts)


def _failed(contract: DataContract, held: list[RuleOutcome], note: str) -> GateOutcome:
    """No record was looked at."""
    return GateOutcome(
        passed=False,
        outcomes=tuple(held),
        licences=(),
        findings_digest=NOT_LOOKED_AT,
        contract_digest=contract.digest,
        expires_at=contract.terms.expires,
        operator_notes=(note,),
        train_records=0,
        heldout_records=0,
    )


def _precondition(rule: str, success: bool) -> RuleOutcome:
    return RuleOutcome(
        rule=rule,
        type="precondition",
        success=success,
        severity="critical",
        element_count=0,
        unexpected_count=0,
    )
