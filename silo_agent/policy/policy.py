"""The silo's own policy: what it is willing to take part in. It fails closed.

An empty, unreadable or unset policy refuses everything. Every rule is a small function of the plan
and the policy; the first that does not hold decides, and its id goes into the signed refusal. The
sentence that leaves with it is fixed by the rule, so a refusal carries nothing of the silo.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.adapters.adapter_format import adapter_bytes_limit
from data_contracts.dataset.contract import DataContract
from data_contracts.dataset.contract.terms import EGRESS
from data_contracts.errors import SiloOperatorError
from data_contracts.licences.duo import judge_duo
from data_contracts.licences.model_licence import judge_model
from data_contracts.protocol.records import Membership, RoundPlan
from data_contracts.protocol.records.licence_terms import LicenceTerms
from data_contracts.protocol.records.round_plan import AdapterLayout, TrustMode
from data_contracts.protocol.wire_types import Digest, LicenceId, PositiveCount, Text
from infra.disk.toml_files import parse_toml, read_limited, setting_fault

MAX_POLICY_BYTES = 64 * 1024


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AllowedModel(_Section):
    """A base model that may be trained here: by digest, at a local path, under its licence.

    `licence_acceptance` names who at this silo accepted terms that ask for it, as in
    "LicenseRef-Gemma-Terms accepted by A. Person".
    """

    name: Text
    digest: Digest
    licence: LicenceId
    path: Path
    licence_acceptance: Text | None = None


class Limits(_Section):
    """Caps on what a plan may ask. All are inclusive; a missing cap is an unreadable policy.

    Rank and bytes are of what this silo trains and releases: its own layout where the plan gives
    it one. The run's adapter, which it only evaluates, may be larger.
    """

    max_local_steps: PositiveCount
    max_sequences_per_step: PositiveCount
    max_sequence_length: PositiveCount
    max_learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    max_rank: PositiveCount
    max_adapter_bytes: PositiveCount
    min_cohort_silos: PositiveCount
    max_retention_days: PositiveCount


class Policy(_Section):
    """The policy file. `trust_storage_with_deltas` must be true: blobs are not yet encrypted.

    `share_individual_delta` lets the other silos read this silo's adapter by itself.
    `compliance_retention` allows plans under which nobody, for no reason, can erase what this silo
    sent before the plan's time is over. `may_be_named` allows plans under which what is published
    names this silo and gives its held-out losses, to whoever has it.
    """

    version: Literal[1]
    take_part: bool
    purposes: Annotated[tuple[Text, ...], Field(min_length=1)]
    trust_modes: Annotated[tuple[TrustMode, ...], Field(min_length=1)]
    trust_storage_with_deltas: bool
    share_individual_delta: bool = False
    compliance_retention: bool = False
    may_be_named: bool = False
    limits: Limits
    models: Annotated[tuple[AllowedModel, ...], Field(min_length=1)]

    def model(self, digest: str) -> AllowedModel | None:
        """The allowed model with this digest."""
        return next((m for m in self.models if m.digest == digest), None)


@dataclass(frozen=True)
class PolicyFile:
    """A policy with the digest of its bytes, or the reason why there is none."""

    policy: Policy | None
    digest: str | None
    problem: str | None


@dataclass(frozen=True)
class PolicyRefusal:
    """The deciding rule and its fixed sentence."""

    rule: str
    reason: str


@dataclass(frozen=True)
class ContractTerms:
    """What policy and release need of the silo's data contract, which both sides have signed."""

    digest: str
    purposes: tuple[str, ...]
    expires_at: datetime
    uses: tuple[str, ...] = ("research",)
    duo_codes: tuple[str, ...] = ()
    attested: frozenset[str] = frozenset()
    egress: tuple[str, ...] = EGRESS
    registered_licences: tuple[LicenceTerms, ...] = ()
    agreement: bytes = b""

    @classmethod
    def of(cls, contract: DataContract, agreement: bytes = b"") -> "ContractTerms":
        """The terms of a contract that was read, with the envelope that both sides signed; without
        it for whoever only wants to know what the policy says."""
        terms = contract.terms
        return cls(
            digest=contract.digest,
            purposes=contract.purposes,
            expires_at=terms.expires,
            uses=terms.uses,
            duo_codes=terms.duo_codes,
            attested=terms.attested(),
            egress=terms.egress.allow,
            registered_licences=tuple(licence.terms() for licence in terms.licence_terms),
            agreement=agreement,
        )


@dataclass(frozen=True)
class PlanContext:
    """What the rules look at besides the plan and the policy."""

    silo: str
    federation: str
    membership: Membership
    contract: ContractTerms | None
    now: datetime


Rule = Callable[[RoundPlan, Policy, PlanContext], bool]


def read_policy(path: Path) -> PolicyFile:
    """Read the policy file; a fault becomes a `PolicyFile` without a policy, never an exception."""
    try:
        data = read_limited(path, MAX_POLICY_BYTES)
    except OSError as error:
        return PolicyFile(None, None, f"{path}: {error.strerror}")
    digest = hashlib.sha256(data).hexdigest()
    if len(data) > MAX_POLICY_BYTES:
        return PolicyFile(None, digest, f"{path}: larger than {MAX_POLICY_BYTES} bytes")
    try:
        return PolicyFile(Policy.model_validate(parse_toml(data)), digest, None)
    except ValidationError as error:
        where, expected, found = setting_fault(error)
        return PolicyFile(None, digest, f"{path}: {where}: expected {expected}; found {found}")
    except ValueError as error:
        return PolicyFile(None, digest, f"{path}: {error}")


def require_policy(file: PolicyFile) -> Policy:
    """The policy, or SiloOperatorError; for commands a person runs, not for rounds."""
    if file.policy is None:
        raise SiloOperatorError(
            "policy",
            expected="a readable policy file with every limit set",
            found=file.problem or "nothing",
            action="correct the policy; until then the agent refuses every plan",
        )
    return file.policy


def judge_plan(plan: RoundPlan, file: PolicyFile, context: PlanContext) -> PolicyRefusal | None:
    """The first rule that does not hold, or None when the silo takes part."""
    if file.policy is None:
        return PolicyRefusal("policy.unreadable", "The silo has no readable policy.")
    for rule, reason, holds in RULES:
        if not holds(plan, file.policy, context):
            return PolicyRefusal(rule, reason)
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
    ("plan.expired", "The plan has expired.", lambda p, s, c: c.now < p.submit_by),
    (
        "policy.trust_mode",
        "The silo does not allow the plan's trust mode.",
        lambda p, s, c: p.trust_mode in s.trust_modes and p.trust_mode == "auditable",
    ),
    (
        "policy.storage_trust",
        "The silo does not trust storage with readable adapters.",
        lambda p, s, c: s.trust_storage_with_deltas,
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
        lambda p, s, c: all(
            adapter_bytes_limit(layout) <= s.limits.max_adapter_bytes
            for layout in _layouts(p, c.silo)
        ),
    ),
    (
        "plan.trainable",
        "The plan's recipe leads away from where it starts, or cannot leave it.",
        lambda p, s, c: _trainable(p),
    ),
)


def _trainable(plan: RoundPlan) -> bool:
    """A negative proximal weight pushes away from the start without end; A alone cannot learn from
    the seed, where B is zero and so is A's gradient."""
    stuck = plan.recipe.trained_factors == "a" and plan.starting_adapter is None
    return plan.recipe.proximal_mu >= 0 and not stuck


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
