"""The agreement to its data contract that a silo's acceptance carries: who agreed, and when."""

from data_contracts.dataset.contract.agreement import Parties, open_agreement
from data_contracts.errors import DataStewardError, UntrustedInputError
from data_contracts.protocol.dsse import from_base64
from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import Acceptance, ContractAgreement, RoundPlan


def is_agreed(acceptance: Verified[Acceptance] | None, plan: RoundPlan, parties: Parties) -> bool:
    """Whether an acceptance carries what both `parties` signed of the contract that the plan pins;
    no acceptance carries nothing wrong."""
    return acceptance is None or carried_agreement(acceptance.record, plan, parties) is not None


def carried_agreement(
    acceptance: Acceptance, plan: RoundPlan, parties: Parties
) -> Verified[ContractAgreement] | None:
    """The agreement, verified; None where it is none, or to something else."""
    pinned = plan.contract_digest_of(parties.silo)
    if acceptance.agreement is None or pinned is None:
        return None
    try:
        return open_agreement(from_base64(acceptance.agreement), pinned, parties)
    except (DataStewardError, UntrustedInputError):
        return None
