"""The rules of a silo about the sums of confidential mode that it helps to open."""

from data_contracts.protocol.records import RoundPlan
from silo_agent.policy.known_silos import FEW_KNOWN, knows_enough
from silo_agent.policy.plan_context import PlanContext, Rule
from silo_agent.policy.policy_file import Policy


def _is_of_enough(plan: RoundPlan, policy: Policy, _: PlanContext) -> bool:
    least = policy.limits.min_summed_silos
    return plan.masking is None or (least is not None and plan.masking.threshold >= least)


def _is_among_known(plan: RoundPlan, policy: Policy, context: PlanContext) -> bool:
    return plan.masking is None or knows_enough(
        plan.cohort, policy, context.membership, context.silo
    )


MASKED_RULES: tuple[tuple[str, str, Rule], ...] = (
    (
        "policy.min_summed_silos",
        "The plan's sum is of fewer silos than the silo allows.",
        _is_of_enough,
    ),
    (FEW_KNOWN.rule, FEW_KNOWN.reason, _is_among_known),
    (
        "plan.second_sum",
        "The silo has helped to open another sum of this round, or of the same training.",
        lambda p, s, c: p.masking is None or not c.is_second_sum,
    ),
    (
        "policy.sums_per_start",
        "The silo has helped to open as many sums from this start as it allows.",
        lambda p, s, c: p.masking is None or c.sums_opened < (s.limits.max_sums_per_start or 10**9),
    ),
)
