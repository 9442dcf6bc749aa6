"""Every record that crosses a trust boundary, one module each."""

from data_contracts.records.abort import Abort
from data_contracts.records.acceptance import Acceptance, Refusal
from data_contracts.records.base import Record, RoundRecord, SiloRecord
from data_contracts.records.candidate import Candidate
from data_contracts.records.close import Close
from data_contracts.records.coalition_losses import CoalitionLosses
from data_contracts.records.contract_agreement import ContractAgreement
from data_contracts.records.contribution_request import ContributionRequest
from data_contracts.records.copyright_registry import CopyrightRegistry
from data_contracts.records.decision import Decision
from data_contracts.records.evaluation import Evaluation
from data_contracts.records.membership import Membership
from data_contracts.records.round_plan import RoundPlan
from data_contracts.records.round_report import RoundReport
from data_contracts.records.status import Status
from data_contracts.records.submission import Submission
from data_contracts.records.verdict import Verdict

RECORD_TYPES: dict[str, type[Record]] = {
    record.kind: record
    for record in (
        Abort,
        Acceptance,
        Candidate,
        Close,
        CoalitionLosses,
        ContractAgreement,
        ContributionRequest,
        CopyrightRegistry,
        Decision,
        Evaluation,
        Membership,
        Refusal,
        RoundPlan,
        RoundReport,
        Status,
        Submission,
        Verdict,
    )
}

__all__ = [
    "RECORD_TYPES",
    "Abort",
    "Acceptance",
    "Candidate",
    "Close",
    "CoalitionLosses",
    "ContractAgreement",
    "ContributionRequest",
    "CopyrightRegistry",
    "Decision",
    "Evaluation",
    "Membership",
    "Record",
    "Refusal",
    "RoundPlan",
    "RoundRecord",
    "RoundReport",
    "SiloRecord",
    "Status",
    "Submission",
    "Verdict",
]
