"""What rules ask of a plan that takes more than a line; each a pure function."""

from data_contracts.adapters.adapter_format import adapter_bytes_limit
from data_contracts.confidential.payload import masked_size
from data_contracts.licences.model_licence import judge_model
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.sent_layout import exchanged_layout
from data_contracts.protocol.records.training_recipe import LEAST_STEPS_TO_SHARE_A
from silo_agent.policy.policy_file import Policy


def trainable(plan: RoundPlan) -> bool:
    """A negative proximal weight pushes away from the start without end; A alone cannot learn from
    the seed, where B is zero and so is A's gradient. For the same reason one step of a silo that
    has no B yet moves nothing of the A that it would send."""
    stuck = plan.recipe.trained_factors == "a" and plan.starting_adapter is None
    stuck = stuck or (plan.shares_a and plan.recipe.fewest_steps < LEAST_STEPS_TO_SHARE_A)
    return plan.recipe.proximal_mu >= 0 and not stuck


def layouts_of(plan: RoundPlan, silo: str) -> tuple[AdapterLayout, ...]:
    """What the silo trains, and the residual that it has to load beside it."""
    residual = plan.residual_layout
    return (plan.layout_of(silo),) if residual is None else (plan.layout_of(silo), residual)


def most_bytes(plan: RoundPlan, silo: str) -> int:
    """Of the largest file that the silo releases or takes; images may be larger than adapters."""
    exchanged = exchanged_layout(plan.merge.rule, plan.layout_of(silo))
    layouts = (exchanged, *layouts_of(plan, silo)[1:])
    masked = 0 if plan.masking is None else masked_size(plan)
    return max(masked, *map(adapter_bytes_limit, layouts))


def base_model_allowed(plan: RoundPlan, policy: Policy) -> bool:
    """Whether the policy names this very model, under the licence that the plan states."""
    model = policy.model(plan.base_model.digest)
    return model is not None and model.licence == plan.base_model.licence


def model_licence_allowed(plan: RoundPlan, policy: Policy) -> bool:
    """Both have to accept terms that ask for it: whoever makes the plan, and this silo."""
    model, base = policy.model(plan.base_model.digest), plan.base_model
    if model is None:
        return False
    acceptances = (base.licence_acceptance, model.licence_acceptance)
    return all(judge_model(base.licence, plan.use, who).allowed for who in acceptances)
