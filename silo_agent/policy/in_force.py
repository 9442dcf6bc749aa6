"""What a silo has agreed to, as it is at the moment of asking."""

from collections.abc import Callable
from dataclasses import dataclass

from data_contracts.dataset.contract.agreement import Parties
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.policy.policy_file import PolicyFile


@dataclass(frozen=True)
class InForce:
    """Reads contract and policy anew at every call, so that an edit or a withdrawal counts at once.

    `contract` gives None when the contract is unusable or `parties` have not agreed on it.
    """

    contract: Callable[[Parties], ContractTerms | None]
    policy: Callable[[], PolicyFile]
