"""The rules by which a silo judges a plan.

Every rule is a small function of the plan and the policy; the first that does not hold decides, and
its id goes into the signed refusal. The sentence that leaves with it is fixed by the rule, so a
refusal carries nothing of the silo; but for rules about what its machine can do, which add two
numbers, what is asked and what there is: memory of a training process (`policy.resources`), steps
(`policy.least_steps`), sequences of a step and processes (`policy.ranks`).
"""

from decimal import Decimal

from data_contracts.licences.duo import judge_duo
from data_contracts.protocol.records import RoundPlan
from data_contracts.protocol.records.model_family import FORMS_OF
from data_contracts.protocol.records.plan_bounds import outside_bounds
from silo_agent.policy.known_silos import UNREADABLE
from silo_agent.policy.masked_rules import MASKED_RULES
from silo_agent.policy.plan_context import PlanContext, PolicyRefusal, Rule
from silo_agent.policy.plan_questions import (
    base_model_allowed,
    layouts_of,
    model_licence_allowed,
    most_bytes,
    trainable,
)
from silo_agent.policy.policy_file import PolicyFile
from silo_agent.policy.privacy_rules import PRIVACY_RULES

RESOURCES, LEAST_STEPS, RANKS = "policy.resources", "policy.least_steps", "policy.ranks"
FAMILY_MODEL = "policy.family_model"


def judge_plan(plan: RoundPlan, file: PolicyFile, context: PlanContext) -> PolicyRefusal | None:
    """The first rule that does not hold, or None when the silo takes part."""
    if file.policy is None:
        return UNREADABLE
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
    (
        "plan.revoked",
        "The plan starts from what was revoked when a silo's part was taken out.",
        lambda p, s, c: c.erasures.revoked.isdisjoint(ref.digest for ref in p.starts),
    ),
    (
        "plan.erasure",
        "The plan does not name the newest erasure of the feed.",
        lambda p, s, c: p.erasure == c.erasures.newest,
    ),
    ("plan.expired", "The plan has expired.", lambda p, s, c: c.now < p.submit_by),
    (
        "policy.trust_mode",
        "The silo does not allow the plan's trust mode.",
        lambda p, s, c: p.trust_mode in s.trust_modes,
    ),
    *MASKED_RULES,
    (
        "policy.storage_trust",
        "The silo does not trust storage with readable adapters.",
        lambda p, s, c: (
            p.encryption is not None or s.trust_storage_with_deltas or p.masking is not None
        ),
    ),
    (
        "policy.recipients",
        "The plan encrypts to others than its membership names, or to no identity of this silo.",
        lambda p, s, c: p.encryption is None or _readable(p, c),
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
    *PRIVACY_RULES,
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
        lambda p, s, c: base_model_allowed(p, s),
    ),
    (
        "policy.model_licence",
        "The base model's licence does not allow the plan's use.",
        lambda p, s, c: model_licence_allowed(p, s),
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
        lambda p, s, c: all(layout.rank <= s.limits.max_rank for layout in layouts_of(p, c.silo)),
    ),
    (
        "policy.adapter_bytes",
        "The plan's adapter is larger than the silo releases.",
        lambda p, s, c: most_bytes(p, c.silo) <= s.limits.max_adapter_bytes,
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
        lambda p, s, c: trainable(p),
    ),
    (
        "plan.numbers",
        "A number of the plan's recipe, layout, merge or publication rule makes no sense.",
        lambda p, s, c: outside_bounds(p) is None,
    ),
)


def _with_numbers(rule: str, reason: str, context: PlanContext) -> str:
    return f"{reason} {context.lacks.get(rule, '')}".rstrip()


def _readable(plan: RoundPlan, context: PlanContext) -> bool:
    """The coordinator of the membership, and nobody else, reads what this silo sends; and this silo
    reads what it is sent."""
    members, encryption = context.membership, plan.encryption
    if encryption is None or members.coordinator_recipient != encryption.coordinator_recipient:
        return False
    return members.recipient_of(context.silo) in context.recipients
