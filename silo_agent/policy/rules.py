"""The rules by which a silo judges a plan.

Every rule is a small function of the plan and the policy; the first that does not hold decides, and
its id goes into the signed refusal. The sentence that leaves with it is fixed by the rule, so a
refusal carries nothing of the silo; but for rules about what its machine can do, which add two
numbers, what is asked and what there is: memory of a training process (`policy.resources`), steps
(`policy.least_steps`), sequences of a step and processes (`policy.ranks`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from data_contracts.adapters.adapter_format import adapter_bytes_limit
from data_contracts.confidential.payload import masked_size
from data_contracts.licences.duo import judge_duo
from data_contracts.licences.model_licence import judge_model
from data_contracts.protocol.records import Membership, RoundPlan
from data_contracts.protocol.records.adapter_layout import AdapterLayout
from data_contracts.protocol.records.model_family import FORMS_OF
from data_contracts.protocol.records.plan_bounds import outside_bounds
from data_contracts.protocol.records.training_recipe import LEAST_STEPS_TO_SHARE_A
from silo_agent.policy.contract_terms import ContractTerms
from silo_agent.policy.policy_file import Policy, PolicyFile


@dataclass(frozen=True)
class PolicyRefusal:
    """The deciding rule and its fixed sentence."""

    rule: str
    reason: str


@dataclass(frozen=True)
class PlanContext:
    """What the rules look at besides the plan and the policy.

    `goes_back`: the feed had come as far in the plan's run before it. `has_revealed`: this silo has
    helped to open a masked sum of the plan's round, in another attempt: the difference of two sums
    over different silos is what one of them sent. `lacks` says in numbers why
    this silo's machine cannot do the plan, by rule; empty where it can.
    """

    silo: str
    federation: str
    membership: Membership
    contract: ContractTerms | None
    now: datetime
    goes_back: bool = False
    has_revealed: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)


RESOURCES, LEAST_STEPS, RANKS = "policy.resources", "policy.least_steps", "policy.ranks"
FAMILY_MODEL = "policy.family_model"

Rule = Callable[[RoundPlan, Policy, PlanContext], bool]


def judge_plan(plan: RoundPlan, file: PolicyFile, context: PlanContext) -> PolicyRefusal | None:
    """The first rule that does not hold, or None when the silo takes part."""
    if file.policy is None:
        return PolicyRefusal("policy.unreadable", "The silo has no readable policy.")
    for rule, reason, holds in RULES:
        if not holds(plan, file.policy, context):
            return PolicyRefusal(rule, _with_numbers(rule, reason, context))
    return None


RULES: tuple[tuple[str, str, Rule], ...] = (
    (
        "plan.federation",
        "The plan belongs to another federation.",
        lambda p, s, c: p.federation == c.federation,
    ),
    (
        "plan.membership",
        "The plan names a silo that is no member in its round.",
        lambda p, s, c: set(p.cohort) <= set(c.membership.silos_of_round(p.round)),
    ),
    ("policy.take_part", "The silo does not take part at present.", lambda p, s, c: s.take_part),
    (
        "plan.earlier_round",
        "The plan goes back to a round, or an attempt, that its run had reached before.",
        lambda p, s, c: not c.goes_back,
    ),
    ("plan.expired", "The plan has expired.", lambda p, s, c: c.now < p.submit_by),
    (
        "policy.trust_mode",
        "The silo does not allow the plan's trust mode.",
        lambda p, s, c: p.trust_mode in s.trust_modes,
    ),
    (
        "policy.min_summed_silos",
        "The plan's sum is of fewer silos than the silo allows.",
        lambda p, s, c: (
            p.masking is None or p.masking.threshold >= (s.limits.min_summed_silos or 0)
        ),
    ),
    (
        "plan.second_sum",
        "The silo has revealed shares in another attempt of this round.",
        lambda p, s, c: not (p.masking is not None and c.has_revealed),
    ),
    (
        "policy.storage_trust",
        "The silo does not trust storage with readable adapters.",
        lambda p, s, c: s.trust_storage_with_deltas or p.masking is not None,
    ),
    (
        "policy.retention",
        "The plan keeps what the silo sends for longer, or more firmly, than the silo allows.",
        lambda p, s, c: (
            p.retention.days <= s.limits.max_retention_days
            and (p.retention.mode == "governance" or s.compliance_retention)
        ),
    ),
    (
        "policy.named",
        "The plan publishes the silo's name and losses, which the silo does not allow.",
        lambda p, s, c: s.may_be_named or not p.publication.name_silos,
    ),
    (
        "policy.purpose",
        "The silo does not allow the plan's purpose.",
        lambda p, s, c: p.purpose in s.purposes,
    ),
    (
        "policy.cohort",
        "The cohort is smaller than the silo allows.",
        lambda p, s, c: len(p.cohort) >= s.limits.min_cohort_silos,
    ),
    (
        "policy.contract",
        "The plan does not pin a data contract that silo and coordinator have signed.",
        lambda p, s, c: (
            c.contract is not None and p.contract_digest_of(c.silo) == c.contract.digest
        ),
    ),
    (
        "policy.contract_purpose",
        "The silo's data contract does not allow the plan's purpose.",
        lambda p, s, c: c.contract is not None and p.purpose in c.contract.purposes,
    ),
    (
        "policy.contract_expired",
        "The silo's data contract has expired.",
        lambda p, s, c: c.contract is not None and c.now < c.contract.expires_at,
    ),
    (
        "policy.contract_use",
        "The silo's data contract does not allow the plan's use.",
        lambda p, s, c: c.contract is not None and p.use in c.contract.uses,
    ),
    (
        "policy.contract_duo",
        "The silo's data use conditions do not allow the plan's use.",
        lambda p, s, c: (
            c.contract is not None
            and judge_duo(c.contract.duo_codes, p.use, c.contract.attested) is None
        ),
    ),
    (
        "policy.contract_egress",
        "The silo's data contract lets no adapter out.",
        lambda p, s, c: c.contract is not None and "local-adapter" in c.contract.egress,
    ),
    (
        "policy.family",
        "The plan's family of models is not trained on records of the silo's data contract.",
        lambda p, s, c: c.contract is not None and c.contract.form in FORMS_OF[p.learned.family],
    ),
    (
        "policy.classes",
        "The silo's data contract has a class that the plan does not name.",
        lambda p, s, c: (
            c.contract is not None
            and (p.learned.classes is None or c.contract.classes <= set(p.learned.classes))
        ),
    ),
    (
        "policy.base_model",
        "The silo does not allow the plan's base model.",
        lambda p, s, c: _base_model_allowed(p, s),
    ),
    (
        "policy.model_licence",
        "The base model's licence does not allow the plan's use.",
        lambda p, s, c: _model_licence_allowed(p, s),
    ),
    (
        FAMILY_MODEL,
        "The plan's base model is none of its family, or has other modules than the plan names.",
        lambda p, s, c: FAMILY_MODEL not in c.lacks,
    ),
    (
        "policy.local_steps",
        "The plan asks for more local steps than the silo allows.",
        lambda p, s, c: p.recipe.local_steps <= s.limits.max_local_steps,
    ),
    (
        "policy.sequences_per_step",
        "The plan asks for larger steps than the silo allows.",
        lambda p, s, c: p.recipe.sequences_per_step <= s.limits.max_sequences_per_step,
    ),
    (
        "policy.sequence_length",
        "The plan asks for longer sequences than the silo allows.",
        lambda p, s, c: p.recipe.sequence_length <= s.limits.max_sequence_length,
    ),
    (
        "policy.learning_rate",
        "The plan's learning rate is outside what the silo allows.",
        lambda p, s, c: 0 < p.recipe.learning_rate <= Decimal(repr(s.limits.max_learning_rate)),
    ),
    (
        "policy.rank",
        "The plan's adapter rank is higher than the silo allows.",
        lambda p, s, c: all(layout.rank <= s.limits.max_rank for layout in _layouts(p, c.silo)),
    ),
    (
        "policy.adapter_bytes",
        "The plan's adapter is larger than the silo releases.",
        lambda p, s, c: _most_bytes(p, c.silo) <= s.limits.max_adapter_bytes,
    ),
    (
        LEAST_STEPS,
        "The plan asks for more steps than the silo can do.",
        lambda p, s, c: LEAST_STEPS not in c.lacks,
    ),
    (
        RANKS,
        "The plan's step cannot be shared evenly by the silo's training processes.",
        lambda p, s, c: RANKS not in c.lacks,
    ),
    (
        RESOURCES,
        "The plan does not fit into the silo's memory.",
        lambda p, s, c: RESOURCES not in c.lacks,
    ),
    (
        "plan.trainable",
        "The plan's recipe leads away from where it starts, or cannot leave it.",
        lambda p, s, c: _trainable(p),
    ),
    (
        "plan.numbers",
        "A number of the plan's recipe, layout, merge or publication rule makes no sense.",
        lambda p, s, c: outside_bounds(p) is None,
    ),
)


def _with_numbers(rule: str, reason: str, context: PlanContext) -> str:
    return f"{reason} {context.lacks.get(rule, '')}".rstrip()


def _trainable(plan: RoundPlan) -> bool:
    """A negative proximal weight pushes away from the start without end; A alone cannot learn from
    the seed, where B is zero and so is A's gradient. For the same reason one step of a silo that
    has no B yet moves nothing of the A that it would send."""
    stuck = plan.recipe.trained_factors == "a" and plan.starting_adapter is None
    stuck = stuck or (plan.shares_a and plan.recipe.fewest_steps < LEAST_STEPS_TO_SHARE_A)
    return plan.recipe.proximal_mu >= 0 and not stuck


def _most_bytes(plan: RoundPlan, silo: str) -> int:
    """Of the largest file that the silo releases or takes; images may be larger than adapters."""
    layouts = (plan.exchanged_of(silo), *_layouts(plan, silo)[1:])
    masked = 0 if plan.masking is None else masked_size(plan)
    return max(masked, *map(adapter_bytes_limit, layouts))


def _layouts(plan: RoundPlan, silo: str) -> tuple[AdapterLayout, ...]:
    """What the silo trains, and the residual that it has to load beside it."""
    residual = plan.residual_layout
    return (plan.layout_of(silo),) if residual is None else (plan.layout_of(silo), residual)


def _base_model_allowed(plan: RoundPlan, policy: Policy) -> bool:
    model = policy.model(plan.base_model.digest)
    return model is not None and model.licence == plan.base_model.licence


def _model_licence_allowed(plan: RoundPlan, policy: Policy) -> bool:
    """Both have to accept terms that ask for it: whoever makes the plan, and this silo."""
    model, base = policy.model(plan.base_model.digest), plan.base_model
    if model is None:
        return False
    acceptances = (base.licence_acceptance, model.licence_acceptance)
    return all(judge_model(base.licence, plan.use, who).allowed for who in acceptances)
