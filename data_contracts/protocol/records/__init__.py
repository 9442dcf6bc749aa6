"""Every record that crosses a trust boundary, one module each."""

from data_contracts.protocol.records.abort import Abort
from data_contracts.protocol.records.acceptance import Acceptance, Refusal
from data_contracts.protocol.records.base import Record
from data_contracts.protocol.records.candidate import Candidate
from data_contracts.protocol.records.close import Close
from data_contracts.protocol.records.coalition_losses import CoalitionLosses
from data_contracts.protocol.records.contract_agreement import ContractAgreement
from data_contracts.protocol.records.contribution_request import ContributionRequest
from data_contracts.protocol.records.copyright_registry import CopyrightRegistry
from data_contracts.protocol.records.countersignature import Countersignature, CountersignedClose
from data_contracts.protocol.records.decision import Decision
from data_contracts.protocol.records.erasure import Erasure, ErasureCertificate
from data_contracts.protocol.records.evaluation import Evaluation
from data_contracts.protocol.records.mask_keys import MaskKeys, MaskRoster
from data_contracts.protocol.records.membership import Membership
from data_contracts.protocol.records.revealed_shares import RevealedShares
from data_contracts.protocol.records.round_plan import RoundPlan
from data_contracts.protocol.records.round_record import RoundRecord, SiloRecord
from data_contracts.protocol.records.round_report import RoundReport
from data_contracts.protocol.records.sealed_shares import SealedShares, ShareBook
from data_contracts.protocol.records.status import Status
from data_contracts.protocol.records.submission import Submission
from data_contracts.protocol.records.verdict import Verdict

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
        Countersignature,
        CountersignedClose,
        Decision,
        Erasure,
        ErasureCertificate,
        Evaluation,
        MaskKeys,
        MaskRoster,
        Membership,
        Refusal,
        RevealedShares,
        RoundPlan,
        RoundReport,
        SealedShares,
        ShareBook,
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
    "Countersignature",
    "CountersignedClose",
    "Decision",
    "Erasure",
    "ErasureCertificate",
    "Evaluation",
    "MaskKeys",
    "MaskRoster",
    "Membership",
    "Record",
    "Refusal",
    "RevealedShares",
    "RoundPlan",
    "RoundRecord",
    "RoundReport",
    "SealedShares",
    "ShareBook",
    "SiloRecord",
    "Status",
    "Submission",
    "Verdict",
]
