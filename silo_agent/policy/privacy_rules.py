"""The rules of a silo about differential privacy.

Whether a plan is private at all, and its unit, follows from plan, policy and contract. The rest
follows from this silo's settings, its ledger and the number of its units; a plan is refused for it
as soon as it is known, at the latest after the check of the data. No number leaves.
"""

from data_contracts.protocol.records import RoundPlan
from silo_agent.policy.plan_context import PlanContext, PolicyRefusal, Rule
from silo_agent.policy.policy_file import Policy

STAGE = PolicyRefusal(
    "policy.privacy_stage",
    "The silo is set to a ZeRO stage above 1, to offloading, or to 8-bit weights on a GPU; no "
    "training is private there.",
)
BUDGET_SPENT = PolicyRefusal(
    "policy.privacy_budget",
    "The plan would go over the privacy budget of the silo's data contract.",
)
DELTA_TOO_LARGE = PolicyRefusal(
    "policy.privacy_delta",
    "The delta of the silo's data contract is above one in the number of its units.",
)
NO_SUBJECTS = PolicyRefusal(
    "policy.privacy_subjects",
    "The plan protects subjects, and the silo's data name none.",
)
REPLAYED = PolicyRefusal(
    "policy.privacy_replay",
    "The silo has released a training on this plan already.",
)
OTHER_UNIT = PolicyRefusal(
    "policy.privacy_unit",
    "The silo's data contract has no privacy budget, or one of a unit that the plan does not "
    "protect.",
)
KNOWN_LATER = (STAGE, BUDGET_SPENT, DELTA_TOO_LARGE, NO_SUBJECTS, REPLAYED)


def _asked(plan: RoundPlan, policy: Policy, context: PlanContext) -> bool:
    """A plain training spends more than any budget, so a contract with one asks for privacy."""
    has_budget = context.contract is not None and context.contract.privacy is not None
    return plan.privacy is not None or not (policy.privacy.required or has_budget)


def _unit_is_protected(plan: RoundPlan, _: Policy, context: PlanContext) -> bool:
    """All records of a subject are more than one record."""
    if plan.privacy is None:
        return True
    budget = context.contract.privacy if context.contract else None
    unit = plan.privacy.unit
    is_enough = budget is not None and (unit == budget.unit or unit == "subject")
    return is_enough and OTHER_UNIT.rule not in context.objections


def _unless_known(refusal: PolicyRefusal) -> Rule:
    return lambda plan, policy, context: refusal.rule not in context.objections


PRIVACY_RULES: tuple[tuple[str, str, Rule], ...] = (
    (
        "policy.privacy",
        "The silo, or its data contract, allows differentially private training alone.",
        _asked,
    ),
    (OTHER_UNIT.rule, OTHER_UNIT.reason, _unit_is_protected),
    *((each.rule, each.reason, _unless_known(each)) for each in KNOWN_LATER),
)
