"""The last record of an attempt: what happened, derived from the evidence and nothing else.

Every field follows from the evidence by a pure function (`aggregator.report.round_report`), so an
auditor who holds the evidence recomputes the report and compares.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.base_model_ref import BaseModelRef
from data_contracts.protocol.records.candidate import SiloInfluence
from data_contracts.protocol.records.evaluation import RightShares
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.records.licence_terms import Use
from data_contracts.protocol.records.merge_spec import MergeSpec
from data_contracts.protocol.records.plan_terms import Retention
from data_contracts.protocol.records.privacy_terms import PrivacyStatement
from data_contracts.protocol.records.round_plan import TrustMode
from data_contracts.protocol.records.round_record import RoundRecord
from data_contracts.protocol.records.submission import QuantisedWeights
from data_contracts.protocol.wire_types import (
    Count,
    DecimalString,
    Digest,
    LicenceId,
    Part,
    PositiveCount,
    RuleId,
    SiloId,
    Text,
)


class SiloLosses(Part):
    """Held-out losses that the silo signed, in nats per token or in the unit of the plan's task;
    `personal` where it told that, `right` where the task's family counts it."""

    base: DecimalString
    starting: DecimalString
    candidate: DecimalString
    silo_only: DecimalString | None
    personal: Annotated[DecimalString | None, Field(exclude_if=lambda value: value is None)] = None
    right: Annotated[RightShares | None, Field(exclude_if=lambda value: value is None)] = None


class SiloSummary(Part):
    """One silo's part in the attempt. `weight_share` is its share of the tokens, 0 to 1.

    The rules of its contract and its licences are in its verdict, which the report lists.

    `tokens` and `steps` are what the silo says it did; `steps` is None where it sent nothing, and
    under a plan that asks everybody for all of them. `base_weights` is there where it says that it
    held the base model quantised while it trained.
    `influence` says what a defence made of it; None where the plan has no defence on products.
    `privacy`: what its training was charged, as its verdict says; None under a plan without.
    """

    silo: SiloId
    outcome: Literal["admitted", "rejected", "refused", "missing"]
    rule: RuleId | None
    contract_digest: Digest
    contract_passed: bool | None
    tokens: Count
    steps: Annotated[PositiveCount | None, Field(exclude_if=lambda value: value is None)] = None
    base_weights: Annotated[
        QuantisedWeights | None, Field(exclude_if=lambda value: value is None)
    ] = None
    weight_share: DecimalString
    influence: SiloInfluence | None = None
    losses: SiloLosses | None
    privacy: Annotated[PrivacyStatement | None, Field(exclude_if=lambda value: value is None)] = (
        None
    )


class InheritedLicence(Part):
    """What the merged adapter may be passed on under, and why; see `licences.adapter_licence`.

    `expression` is an SPDX expression; `attribution` names licences whose authors must be named.
    """

    expression: Text
    attribution: Annotated[tuple[LicenceId, ...], Field(max_length=200)]
    reasons: Annotated[tuple[Text, ...], Field(max_length=400)]


class PageRef(Part):
    """The page made from the report: which version of the renderer, and the SHA-256 of its bytes
    with the place of the embedded bundle empty."""

    renderer: PositiveCount
    digest: Digest


class RoundReport(RoundRecord):
    """Compliance report of one attempt. `page` is the page that its signer made of it.

    `merge` is the plan's; `discarded_energy`, `error`, `error_interval` and `step` are the
    candidate's, see `candidate.ModuleExactness` and `candidate.Candidate`. `adapter_encryption`:
    how adapters lay in storage, see `plan_terms.AdapterEncryption`; None: readable there.
    """

    kind: ClassVar[str] = "round-report"
    table_fields: ClassVar[tuple[str, ...]] = ("silos", "evidence")
    added_fields: ClassVar[tuple[str, ...]] = ("step", "error_interval", "adapter_encryption")

    outcome: Literal["published", "held", "aborted"]
    rule: RuleId
    purpose: Text
    use: Use
    trust_mode: TrustMode
    base_model: BaseModelRef
    starting_adapter: ArtifactRef | None
    candidate_adapter: ArtifactRef | None
    adapter_licence: InheritedLicence | None
    published_adapter: ArtifactRef | None
    merge: MergeSpec
    retention: Retention
    discarded_energy: DecimalString | None
    error: DecimalString | None = None
    error_interval: DecimalString | None = None
    step: DecimalString | None = None
    adapter_encryption: Literal["age"] | None = None
    silos: tuple[SiloSummary, ...]
    evidence: Annotated[tuple[EvidenceRef, ...], Field(max_length=8000)]
    page: PageRef | None = None
