"""What of a record a data contract lets out of the silo.

Which rules hold always leaves, because nobody can join a round without it; counts leave only where
the contract says so.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from data_contracts.dataset.small_cells import SMALL_CELL, reported_total
from data_contracts.protocol.records import Evaluation, SiloRecord, Status, Submission, Verdict
from data_contracts.protocol.records.verdict import LicenceCount, RuleOutcome
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.policy.policy_file import PolicyFile

SiloRecordT = TypeVar("SiloRecordT", bound=SiloRecord)
Egress = tuple[str, ...]
Outcomes = tuple[RuleOutcome, ...]
Licences = tuple[LicenceCount, ...]


def leaving(record: SiloRecordT, contract: ContractTerms) -> SiloRecordT:
    """The record without what its contract keeps in; a verdict says what the contract lets out."""
    changes = _KEPT_IN.get(type(record))
    return record if changes is None else record.model_copy(update=changes(record, contract))


def leaving_memory(status: Status, policy: PolicyFile) -> Status:
    """The status, without what ranks hold unless the policy shows it: coordinators of an earlier
    release cannot read a status that says so."""
    shows = policy.policy is not None and policy.policy.show_memory
    hidden = {"memory_bytes": None, "gpu_memory_bytes": None}
    return status if shows else status.model_copy(update=hidden)


def leaving_outcomes(outcomes: Outcomes, egress: Egress) -> Outcomes:
    """Outcomes of rules, without their counts unless `rule-counts` may leave."""
    if "rule-counts" in egress:
        return outcomes
    hidden = {"element_count": 0, "unexpected_count": None}
    return tuple(rule.model_copy(update=hidden) for rule in outcomes)


def leaving_licences(
    licences: tuple[LicenceCount, ...], egress: Egress
) -> tuple[LicenceCount, ...]:
    """Licence ids, without their counts unless `licence-counts` may leave.

    The ids leave with every verdict: what the merged adapter inherits follows from them.
    """
    if "licence-counts" in egress:
        return licences
    return tuple(count.model_copy(update={"records": None}) for count in licences)


def _verdict(verdict: Verdict, contract: ContractTerms) -> dict[str, Any]:
    egress = contract.egress
    return {
        "outcomes": leaving_outcomes(verdict.outcomes, egress),
        "licences": leaving_licences(verdict.licences, egress),
        "registered_licences": contract.registered_licences,
        "evaluates": "losses" in egress,
        **_records(verdict.offered, verdict.used, egress),
    }


def _records(offered: int | None, used: int | None, egress: Egress) -> dict[str, int | None]:
    """What was left out is rounded down to tens; see `Verdict`."""
    counted = "rule-counts" in egress and reported_total(offered or 0)
    if not counted or offered is None or used is None:
        return {"offered": None, "used": None}
    left_out = offered - used
    return {"offered": offered, "used": offered - (left_out - left_out % SMALL_CELL)}


def _evaluation(evaluation: Evaluation, contract: ContractTerms) -> dict[str, Any]:
    """The number and the standard errors of fewer than SMALL_CELL records never leave: an error
    that a handful of records decide says something about each.

    Nor does what tells the number otherwise: which share of so few is right, and how much was asked
    (told as 1) where one thing is asked of each record.
    """
    hidden: dict[str, Any] = {"records": None, "right": None}
    if evaluation.tokens == evaluation.records:
        hidden["tokens"] = 1
    if evaluation.records is None or evaluation.records < SMALL_CELL:
        return hidden | {"change_error": None, "base_change_error": None}
    return {} if "rule-counts" in contract.egress else hidden


def _submission(submission: Submission, contract: ContractTerms) -> dict[str, Any]:
    may_leave = submission.leaks is None or "leak-figures" in contract.egress
    return {} if may_leave else {"leaks": None}


def _status(status: Status, contract: ContractTerms) -> dict[str, Any]:
    """While data is checked the step is a number of records."""
    is_count = status.phase == "checking_data" and "rule-counts" not in contract.egress
    return {"step": 0} if is_count else {}


_KEPT_IN: Mapping[type[SiloRecord], Callable[[Any, ContractTerms], dict[str, Any]]] = {
    Verdict: _verdict,
    Submission: _submission,
    Evaluation: _evaluation,
    Status: _status,
}
