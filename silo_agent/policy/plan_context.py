"""What a plan is judged by besides itself and the policy, and what comes of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from data_contracts.protocol.known_erasures import KnownErasures
from data_contracts.protocol.records import Membership, RoundPlan
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.policy.policy_file import Policy


@dataclass(frozen=True)
class PolicyRefusal:
    """The deciding rule and its fixed sentence."""

    rule: str
    reason: str


@dataclass(frozen=True)
class PlanContext:
    """What the rules look at besides the plan and the policy.

    `goes_back`: the feed had come as far in the plan's run before it. `is_second_sum`: this silo
    has helped to open a masked sum of the plan's round or of the same training in another attempt,
    and the difference of two sums over different silos is what one of them sent; `sums_opened`: how
    many from the plan's start. `lacks` says in numbers why this silo's machine
    cannot do the plan, by rule; empty where it can. `recipients` are those that this silo has the
    identities of. `objections`: ids of rules that the silo's own settings and its privacy ledger
    have against the plan. `erasures`: what was taken out of the federation's adapters.
    """

    silo: str
    federation: str
    membership: Membership
    contract: ContractTerms | None
    now: datetime
    goes_back: bool = False
    is_second_sum: bool = False
    sums_opened: int = 0
    lacks: Mapping[str, str] = field(default_factory=dict)
    recipients: frozenset[str] = frozenset()
    objections: frozenset[str] = frozenset()
    erasures: KnownErasures = field(default_factory=KnownErasures)


Rule = Callable[[RoundPlan, Policy, PlanContext], bool]
