"""What a verdict must be for training to begin and for an adapter to leave.

The same question at both doors, asked of the contract as it is at that moment: training takes
hours, in which a contract can expire, be withdrawn or be changed. The third door is the
coordinator's, at admission. A closed door is a refusal, signed and counted like any other.
"""

from datetime import datetime

from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import RoundPlan, Verdict
from silo_agent.gate.contract_terms import ContractTerms
from silo_agent.policy.rules import PolicyRefusal
from silo_agent.restarts import CheckDiedError, ProcessDiedError

LOCAL_ADAPTER = "local-adapter"
LOSSES = "losses"
"""What a contract's egress policy calls them."""

NO_CONTRACT = PolicyRefusal(
    "contract.changed", "The signed contract that the plan names is not there any more."
)
NOT_EVALUABLE = PolicyRefusal(
    "contract.not_evaluable", "A rule of the data contract could not be evaluated."
)
DATA_UNUSABLE = PolicyRefusal(
    "data.unusable", "The data cannot be used as they were when the contract was checked."
)
TRAINING_FAILED = PolicyRefusal(
    "training.failed", "Training ended before it was done: killed, out of memory, or crashed."
)
EVALUATION_FAILED = PolicyRefusal(
    "evaluation.failed",
    "The evaluation ended before it was done: killed, out of memory, or crashed.",
)
CHECK_FAILED = PolicyRefusal(
    "data.check_failed",
    "The check of the data ended before it was done: killed, out of memory, or crashed.",
)
NOT_SHARED = PolicyRefusal(
    "policy.share_individual_delta", "The silo's policy does not share its adapter by itself."
)
TOO_LATE = PolicyRefusal("request.too_late", "The time to answer the request is over.")
_FAILED = PolicyRefusal("verdict.failed", "The data contract's verdict is not a pass.")
_UNBOUND = PolicyRefusal(
    "verdict.other_contract", "The verdict is about another plan or another contract."
)
_VERDICT_EXPIRED = PolicyRefusal("verdict.expired", "The data contract's verdict has expired.")
_CONTRACT_EXPIRED = PolicyRefusal("contract.expired", "The data contract has expired.")
_NO_EGRESS = PolicyRefusal("contract.egress", "The data contract does not let this out.")


def refusal_for(error: ProcessDiedError, otherwise: PolicyRefusal) -> PolicyRefusal:
    """What the silo says of a process that died: of the check, which training and evaluation make
    as well, or `otherwise`."""
    return CHECK_FAILED if isinstance(error, CheckDiedError) else otherwise


def objection(
    verdict: Verdict,
    plan: Verified[RoundPlan],
    contract: ContractTerms | None,
    now: datetime,
    leaving: str = LOCAL_ADAPTER,
) -> PolicyRefusal | None:
    """Why the door stays closed to what is `leaving`, or None; `now` is an aware datetime."""
    pinned = plan.record.contract_digest_of(verdict.silo)
    if contract is None or contract.digest != pinned:
        return NO_CONTRACT
    if (verdict.plan_digest, verdict.contract_digest) != (plan.digest, pinned):
        return _UNBOUND
    if not verdict.passed:
        return _FAILED
    if verdict.expires_at <= now:
        return _VERDICT_EXPIRED
    if contract.expires_at <= now:
        return _CONTRACT_EXPIRED
    return None if leaving in contract.egress else _NO_EGRESS
