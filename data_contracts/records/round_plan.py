"""The plan of a round: data that a silo can judge, never code that it would run."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from data_contracts.artifact import ArtifactRef
from data_contracts.licences.uses import Use
from data_contracts.records.base import Record
from data_contracts.wire_types import (
    AttemptNumber,
    Count,
    DecimalString,
    Digest,
    Instant,
    LicenceId,
    ModuleName,
    Part,
    PositiveCount,
    RoundNumber,
    RunId,
    SiloId,
    Text,
)


class BaseModelRef(Part):
    """The frozen base model: a name for people, the digest of its files for machines.

    `licence_acceptance` says who accepted terms that ask for it; see `licences.model_licence`.
    """

    name: Text
    digest: Digest
    licence: LicenceId
    licence_acceptance: Text | None = None


class AdapterTarget(Part):
    """A linear module that carries a LoRA pair A (rank x in_features), B (out_features x rank)."""

    module: ModuleName
    in_features: PositiveCount
    out_features: PositiveCount


class AdapterSpec(Part):
    """Exact layout of every adapter in the run; the gate accepts nothing else."""

    rank: Annotated[int, Field(ge=1, le=1024)]
    alpha: Annotated[int, Field(ge=1, le=4096)]
    seed: Count
    targets: Annotated[tuple[AdapterTarget, ...], Field(min_length=1, max_length=2000)]

    @property
    def scaling(self) -> float:
        """LoRA scaling s = alpha / rank (Hu et al. 2021, section 4.1)."""
        return self.alpha / self.rank

    @model_validator(mode="after")
    def _modules_are_distinct(self) -> "AdapterSpec":
        if len({target.module for target in self.targets}) != len(self.targets):
            raise ValueError("modules in targets must be distinct")
        return self


class TrainingRecipe(Part):
    """How a silo trains. `sequences_per_step` counts over all ranks of the silo."""

    local_steps: PositiveCount
    sequences_per_step: PositiveCount
    sequence_length: Annotated[int, Field(ge=16, le=1_000_000)]
    learning_rate: DecimalString
    warmup_steps: Count
    weight_decay: DecimalString
    max_gradient_norm: DecimalString
    seed: Count

    @property
    def tokens_per_round(self) -> int:
        """Upper bound on the tokens that one silo can train on in one round."""
        return self.local_steps * self.sequences_per_step * self.sequence_length


class MergeSpec(Part):
    """Merge rule and the cap on the tokens that count for one silo's weight."""

    rule: Literal["stack_truncate"]
    weight_cap_tokens: PositiveCount


class PublicationRule(Part):
    """A candidate is published only if mean and every silo's held-out loss stay within these.

    Both are in nats per token, relative to the starting adapter; zero means "not worse".
    """

    max_mean_increase: DecimalString
    max_silo_increase: DecimalString


class ContractPin(Part):
    """The contract, by digest, under which a silo is asked to take part."""

    silo: SiloId
    contract_digest: Digest


class RoundPlan(Record):
    """What the coordinator asks of a cohort in one attempt of one round."""

    kind: ClassVar[str] = "round-plan"

    run: RunId
    round: RoundNumber
    attempt: AttemptNumber
    feed_number: PositiveCount
    previous_digest: Digest | None
    membership_number: PositiveCount
    membership_digest: Digest
    trust_mode: Literal["auditable", "confidential"]
    purpose: Text
    use: Use
    cohort: Annotated[tuple[SiloId, ...], Field(min_length=1, max_length=1000)]
    contracts: tuple[ContractPin, ...]
    base_model: BaseModelRef
    starting_adapter: ArtifactRef | None
    adapter: AdapterSpec
    recipe: TrainingRecipe
    merge: MergeSpec
    publication: PublicationRule
    max_adapter_bytes: PositiveCount
    quorum: PositiveCount
    submit_by: Instant
    evaluation_quorum: PositiveCount
    evaluate_by: Instant
    expires_at: Instant

    @model_validator(mode="after")
    def _is_consistent(self) -> "RoundPlan":
        if len(set(self.cohort)) != len(self.cohort):
            raise ValueError("silos in cohort must be distinct")
        if sorted(pin.silo for pin in self.contracts) != sorted(self.cohort):
            raise ValueError("contracts must name each silo of the cohort exactly once")
        if max(self.quorum, self.evaluation_quorum) > len(self.cohort):
            raise ValueError("quorum and evaluation_quorum cannot exceed the cohort")
        if not self.issued_at < self.submit_by < self.evaluate_by <= self.expires_at:
            raise ValueError("expected issued_at < submit_by < evaluate_by <= expires_at")
        return self

    def contract_digest_of(self, silo: str) -> str | None:
        """Digest of the contract pinned for `silo`, or None when it is not in the cohort."""
        return next((p.contract_digest for p in self.contracts if p.silo == silo), None)
