"""What has to be in force for a record of each kind to leave the silo.

Asked of contract and policy as they are at that moment: training takes hours, in which a contract
can expire, be withdrawn or be changed. The coordinator asks again, at admission. A closed door is a
refusal, signed and counted like any other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from data_contracts.protocol.envelope import Verified
from data_contracts.protocol.records import (
    CoalitionLosses,
    Countersignature,
    Evaluation,
    MaskKeys,
    RevealedShares,
    RoundPlan,
    SealedShares,
    SiloRecord,
    Status,
    Submission,
    Verdict,
)
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.policy.plan_context import PolicyRefusal
from silo_agent.policy.policy_file import PolicyFile
from silo_agent.restarts import CheckDiedError, ProcessDiedError

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
SECRETS_LOST = PolicyRefusal(
    "masking.secrets_lost", "The silo's secrets of this attempt are not there any more."
)
TOO_LATE = PolicyRefusal("request.too_late", "The time to answer the request is over.")
_FAILED = PolicyRefusal("verdict.failed", "The data contract's verdict is not a pass.")
_UNBOUND = PolicyRefusal(
    "verdict.other_contract", "The verdict is about another plan or another contract."
)
_PLAN_EXPIRED = PolicyRefusal("plan.expired", "The plan has expired.")
_VERDICT_EXPIRED = PolicyRefusal("verdict.expired", "The data contract's verdict has expired.")
_CONTRACT_EXPIRED = PolicyRefusal("contract.expired", "The data contract has expired.")
_NO_EGRESS = PolicyRefusal("contract.egress", "The data contract does not let this out.")


def refusal_for(error: ProcessDiedError, otherwise: PolicyRefusal) -> PolicyRefusal:
    """What the silo says of a process that died: of the check, which training and evaluation make
    as well, or `otherwise`."""
    return CHECK_FAILED if isinstance(error, CheckDiedError) else otherwise


@dataclass(frozen=True)
class Grounds:
    """What a door looks at: the plan and the silo's verdict on it, and what is in force `now`, an
    aware datetime."""

    silo: str
    plan: Verified[RoundPlan]
    verdict: Verdict | None
    contract: ContractTerms | None
    policy: PolicyFile
    now: datetime


Door = Callable[[Grounds, ContractTerms], PolicyRefusal | None]


def objection(kind: type[SiloRecord], grounds: Grounds) -> PolicyRefusal | None:
    """Why the door of a kind of record stays closed, or None."""
    contract = grounds.contract
    if kind in UNTIL_EXPIRY and grounds.plan.record.expires_at <= grounds.now:
        return _PLAN_EXPIRED
    if contract is None or contract.digest != grounds.plan.record.contract_digest_of(grounds.silo):
        return NO_CONTRACT
    return DOORS[kind](grounds, contract)


def not_shared(file: PolicyFile) -> PolicyRefusal | None:
    """Why the policy keeps losses of coalitions in, or None; a policy that is not there does."""
    shares = file.policy is not None and file.policy.share_individual_delta
    return None if shares else NOT_SHARED


def _pass(grounds: Grounds, contract: ContractTerms, item: str) -> PolicyRefusal | None:
    """The data passed this very contract, which lets `item` out."""
    verdict = grounds.verdict
    if verdict is None or not _is_bound(verdict, grounds.plan, contract):
        return _UNBOUND
    if not verdict.passed:
        return _FAILED
    if verdict.expires_at <= grounds.now:
        return _VERDICT_EXPIRED
    return _current(grounds, contract, item)


def _is_bound(verdict: Verdict, plan: Verified[RoundPlan], contract: ContractTerms) -> bool:
    return (verdict.plan_digest, verdict.contract_digest) == (plan.digest, contract.digest)


def _current(grounds: Grounds, contract: ContractTerms, item: str) -> PolicyRefusal | None:
    if contract.expires_at <= grounds.now:
        return _CONTRACT_EXPIRED
    return None if item in contract.egress else _NO_EGRESS


def _shared(grounds: Grounds, contract: ContractTerms) -> PolicyRefusal | None:
    return not_shared(grounds.policy) or _pass(grounds, contract, "losses")


UNTIL_EXPIRY: frozenset[type[SiloRecord]] = frozenset(
    {
        Verdict,
        MaskKeys,
        SealedShares,
        Submission,
        Countersignature,
        RevealedShares,
        Evaluation,
    }
)
"""What belongs to the attempt itself, and with it ends: asked before each step and before what it
made leaves. Losses of coalitions are asked for later, with a time of their own, and a status is not
relied upon."""

DOORS: Mapping[type[SiloRecord], Door] = {
    Verdict: lambda grounds, contract: None,
    MaskKeys: partial(_pass, item="local-adapter"),
    SealedShares: partial(_pass, item="local-adapter"),
    Submission: partial(_pass, item="local-adapter"),
    Countersignature: partial(_pass, item="local-adapter"),
    RevealedShares: partial(_pass, item="local-adapter"),
    Evaluation: partial(_pass, item="losses"),
    CoalitionLosses: _shared,
    Status: partial(_current, item="status"),
}
"""What each kind that a contract decides about needs, besides the contract that the plan pins: an
answer to a plan needs none, and a verdict says itself whether the contract is current."""
