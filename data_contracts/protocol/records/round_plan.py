"""The plan of a round: data that a silo can judge, never code that it would run."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.adapter_layout import AdapterLayout, SiloLayout
from data_contracts.protocol.records.base import Record
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.licence_terms import Use
from data_contracts.protocol.records.masked_step import step_fault
from data_contracts.protocol.records.masking_terms import MaskingTerms, masking_fault
from data_contracts.protocol.records.merge_spec import MIXED_RANK_RULES, FedExP, MergeSpec
from data_contracts.protocol.records.model_family import CAUSAL_TASK, FamilyTask
from data_contracts.protocol.records.plan_terms import (
    AdapterEncryption,
    ContractPin,
    CountedCopy,
    ErasureRef,
    PublicationRule,
    ReplayOf,
    Retention,
)
from data_contracts.protocol.records.privacy_terms import PrivacyTerms, private_fault
from data_contracts.protocol.records.sent_layout import exchanged_layout, submitted_layout
from data_contracts.protocol.records.sketch_width import (
    exact_sketch_width,
    least_sketch_width,
    sketch_fault,
)
from data_contracts.protocol.records.training_recipe import TrainingRecipe, trained_factors
from data_contracts.protocol.wire_types import (
    AttemptNumber,
    Day,
    Digest,
    Instant,
    PositiveCount,
    ProgramVersion,
    RoundNumber,
    RunId,
    SiloId,
    Text,
)

Compression = Literal["none", "int8", "int4"]
TrustMode = Literal["auditable", "confidential"]

MAX_COHORT = 1000
ANY_DAY = "2026-01-01"
"""Where no template is known to write a date, so that nothing is measured anew for another day."""


class RoundPlan(Record):
    """What the coordinator asks of a cohort in one attempt of one round.

    Besides the starting adapter a round may start from a residual (a second, frozen adapter of
    `residual_layout`), from the server optimizer's state, and from the adapter of the round before
    the starting one (`earlier_adapter`), whose difference is the change that a centre or a heavy
    ball carries on. `prompt_date` is there where the chat template writes a date, the same in all
    rounds of a run so that their losses compare. `program` is the version of the coordinator.
    `merge_error`: that of the merge is measured in full, not estimated, however many silos.
    `counted_copies`: what a person decided about silos whose changes are the same.
    `task`: what is learned where that is not what a causal model does with text.
    `masking`: in confidential mode, how the sum of silos' changes is had without any one of them.
    `encryption`: how adapters lie in storage; None: readable by whoever runs it.
    `privacy`: differentially private training at every silo; None: plain training.
    `erasure`: the newest of the feed, for who has not read it there; None: there is none.
    `replay`: the round of another run that this one repeats for it.
    """

    kind: ClassVar[str] = "round-plan"
    added_fields: ClassVar[tuple[str, ...]] = (
        "program",
        "merge_error",
        "prompt_date",
        "counted_copies",
        "task",
        "masking",
        "encryption",
        "privacy",
        "erasure",
        "replay",
    )
    max_payload_bytes: ClassVar[int] = 1024 * 1024

    run: RunId
    round: RoundNumber
    attempt: AttemptNumber
    feed_number: PositiveCount
    previous_digest: Digest | None
    membership_number: PositiveCount
    membership_digest: Digest
    trust_mode: TrustMode
    purpose: Text
    use: Use
    cohort: Annotated[tuple[SiloId, ...], Field(min_length=1, max_length=MAX_COHORT)]
    contracts: tuple[ContractPin, ...]
    base_model: BaseModelRef
    starting_adapter: ArtifactRef | None
    starting_residual: ArtifactRef | None = None
    earlier_adapter: ArtifactRef | None = None
    server_state: ArtifactRef | None = None
    layout: AdapterLayout
    silo_layouts: tuple[SiloLayout, ...] = ()
    recipe: TrainingRecipe
    prompt_date: Day | None = None
    merge: MergeSpec
    merge_error: Literal["exact"] | None = None
    compression: Compression = "none"
    publication: PublicationRule
    retention: Retention = Retention()
    max_adapter_bytes: PositiveCount
    quorum: PositiveCount
    submit_by: Instant
    evaluation_quorum: PositiveCount
    evaluate_by: Instant
    expires_at: Instant
    program: ProgramVersion | None = None
    task: FamilyTask | None = None
    masking: MaskingTerms | None = None
    counted_copies: (
        Annotated[tuple[CountedCopy, ...], Field(min_length=1, max_length=MAX_COHORT)] | None
    ) = None
    encryption: AdapterEncryption | None = None
    privacy: PrivacyTerms | None = None
    erasure: ErasureRef | None = None
    replay: ReplayOf | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> "RoundPlan":
        if len(set(self.cohort)) != len(self.cohort):
            raise ValueError("silos in cohort must be distinct")
        if sorted(pin.silo for pin in self.contracts) != sorted(self.cohort):
            raise ValueError("contracts must name each silo of the cohort exactly once")
        if max(self.quorum, self.evaluation_quorum) > len(self.cohort):
            raise ValueError("quorum and evaluation_quorum cannot exceed the cohort")
        counted = [entry.silo for entry in self.counted_copies or ()]
        if len(set(counted)) != len(counted) or not set(counted) <= set(self.cohort):
            raise ValueError("counted_copies must name silos of the cohort, each at most once")
        if not self.issued_at < self.submit_by < self.evaluate_by <= self.expires_at:
            raise ValueError("expected issued_at < submit_by < evaluate_by <= expires_at")
        return self

    @model_validator(mode="after")
    def _starts_from_what_can_be_read(self) -> "RoundPlan":
        if any((r.ciphertext is None) is not (self.encryption is None) for r in self.starts):
            raise ValueError("what a plan starts from is encrypted where its encryption says so")
        return self

    @model_validator(mode="after")
    def _layouts_fit(self) -> "RoundPlan":
        silos = [own.silo for own in self.silo_layouts]
        if len(set(silos)) != len(silos) or not set(silos) <= set(self.cohort):
            raise ValueError("silo_layouts must name silos of the cohort, each at most once")
        if silos and self.merge.rule not in MIXED_RANK_RULES:
            raise ValueError(f"the rule {self.merge.rule} needs one layout for all silos")
        known = {target.module for target in self.layout.pairs}
        for own in self.silo_layouts:
            if own.rank > self.layout.rank or not set(own.modules or ()) <= known:
                raise ValueError("a silo's own layout must be a part of the run's adapter")
        is_first = self.starting_adapter is None
        wanted = trained_factors(self.merge.rule, self.round, is_first=is_first)
        if self.recipe.trained_factors != wanted:
            raise ValueError("trained_factors must be what the merge rule asks for in this round")
        if self.layout.has_a_alone or self.layout.has_cores:
            raise ValueError("the layout is that of what silos train, pairs of factors")
        return self

    @model_validator(mode="after")
    def _merge_can_be_kept(self) -> "RoundPlan":
        robust = self.merge.robust
        if robust and (self.quorum < robust.silos_needed or self.silo_layouts):
            raise ValueError("a defence needs its silos in the quorum, and one layout for all")
        if self.starting_residual and self.merge.residual_rank is None:
            raise ValueError("a starting residual goes with the rule residual")
        if self.server_state and not self.merge.optimizer_state:
            raise ValueError("a server state goes with an optimizer that keeps one")
        if self.merge.rule == "fed_sb" and self.compression != "none":
            raise ValueError("cores are sent as they are: fed_sb goes with compression none")
        return self

    @model_validator(mode="after")
    def _masks_give_what_they_promise(self) -> "RoundPlan":
        terms, silos = self.masking, len(self.cohort)
        if (terms is None) == (self.trust_mode == "confidential"):
            raise ValueError("masking goes with the trust mode confidential and with no other")
        if terms is None and self.is_sketched:
            raise ValueError("the rule sketch is stack_truncate of what masks hide")
        if terms is None:
            return self
        if fault := masking_fault(self.merge, silos, terms.threshold) or self._sum_fault(terms):
            raise ValueError(f"expected {fault[0]}, found {fault[1]}")
        if self.compression != "none" or self.merge_error or self.counted_copies is not None:
            raise ValueError("masked changes are not compressed, not compared, and no copy is seen")
        if any(own.modules for own in self.silo_layouts):
            raise ValueError("masked changes are of the same modules: a sum needs all its silos")
        if self.quorum < terms.threshold:
            raise ValueError("the quorum must be at least the threshold of masking")
        if not terms.lies_within(self.issued_at, self.submit_by, self.evaluate_by):
            raise ValueError("expected the deadlines of masks between those of the plan")
        return self

    @model_validator(mode="after")
    def _can_be_private(self) -> "RoundPlan":
        fault = private_fault(self.recipe, self.learned, has_copies=bool(self.counted_copies))
        if self.privacy is not None and fault is not None:
            raise ValueError(f"expected {fault[0]} under privacy, found {fault[1]}")
        return self

    @property
    def starts(self) -> tuple[ArtifactRef, ...]:
        """All that the round goes on from; empty where that is the seed."""
        begun = (self.starting_adapter, self.starting_residual)
        refs = (*begun, self.earlier_adapter, self.server_state)
        return tuple(ref for ref in refs if ref is not None)

    @property
    def day(self) -> str:
        """`prompt_date`, or for a plan that names none, always the same day."""
        return self.prompt_date or ANY_DAY

    @property
    def learned(self) -> FamilyTask:
        """`task`; of a plan that names none, causal language models."""
        return self.task or CAUSAL_TASK

    def layout_of(self, silo: str) -> AdapterLayout:
        """The layout that `silo` trains and submits."""
        own = next((entry for entry in self.silo_layouts if entry.silo == silo), None)
        return self.layout if own is None else own.within(self.layout)

    @property
    def greatest_weight(self) -> int:
        """The most tokens that can count for one silo."""
        return min(self.merge.weight_cap_tokens, self.recipe.tokens_per_round)

    def weight_of(self, tokens: int) -> int:
        """How much a silo that trained on so many tokens counts."""
        return min(tokens, self.merge.weight_cap_tokens)

    @property
    def shares_a(self) -> bool:
        """Whether silos send A alone and each keeps its B, so that no adapter for others exists."""
        return self.merge.rule == "shared_a"

    @property
    def is_sketched(self) -> bool:
        """Whether silos send images of their products, from which that of the sum is rebuilt."""
        return self.merge.rule == "sketch"

    @property
    def sketch_width(self) -> int:
        """Columns of an image under the rule `sketch`; that of the merge, or the least."""
        return self.merge.sketch_width or least_sketch_width(self.layout.rank, self._silo_ranks)

    @property
    def _silo_ranks(self) -> list[int]:
        return [self.layout_of(silo).rank for silo in self.cohort]

    def _sum_fault(self, terms: MaskingTerms) -> tuple[str, str] | None:
        rank, own, width = self.layout.rank, self._silo_ranks, self.sketch_width
        exact, trained = exact_sketch_width(rank, own), self.recipe.trained_factors
        return sketch_fault(self.merge.sketch_width, rank, own) or step_fault(
            self.merge, trained, terms.clip_norm, exact, width
        )

    @property
    def masks_norms(self) -> bool:
        """Whether silos mask how long their changes are, which the step of `fedexp` needs."""
        return self.masking is not None and isinstance(self.merge.optimizer, FedExP)

    @property
    def exchanged(self) -> AdapterLayout:
        """The layout of what a round starts from and merges into; under `shared_a` A alone."""
        return exchanged_layout(self.merge.rule, self.layout)

    @property
    def submitted(self) -> AdapterLayout:
        """The layout of what silos without one of their own send: `exchanged`, or cores alone."""
        return submitted_layout(self.merge.rule, self.recipe.trained_factors, self.layout)

    def submitted_by(self, silo: str) -> AdapterLayout:
        """The layout of what `silo` sends."""
        return submitted_layout(self.merge.rule, self.recipe.trained_factors, self.layout_of(silo))

    @property
    def sends_cores(self) -> bool:
        """Whether silos send the change of a core between bases that all know."""
        return self.recipe.trained_factors == "core"

    @property
    def residual_layout(self) -> AdapterLayout | None:
        """Layout of the residual, whose scaling is 1; None when the rule publishes none."""
        rank = self.merge.residual_rank
        return None if rank is None else self.layout.residual_of(rank)

    def contract_digest_of(self, silo: str) -> str | None:
        """Digest of the contract pinned for `silo`, or None when it is not in the cohort."""
        return next((p.contract_digest for p in self.contracts if p.silo == silo), None)
