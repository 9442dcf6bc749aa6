"""Whether the candidate is published, by which rule, and on whose evaluations."""

from typing import ClassVar, Literal

from data_contracts.artifact import ArtifactRef
from data_contracts.records.base import RoundRecord
from data_contracts.wire_types import DecimalString, Digest, Part, RuleId, SiloId, VersionId


class UsedEvaluation(Part):
    """An evaluation that counted; `version` as in `evidence_ref.EvidenceRef`."""

    silo: SiloId
    evaluation_digest: Digest
    version: VersionId | None = None


class Decision(RoundRecord):
    """`published_adapter` is the adapter that later rounds start from, whatever the outcome."""

    kind: ClassVar[str] = "decision"
    table_fields: ClassVar[tuple[str, ...]] = ("evaluations", "missing")

    candidate_digest: Digest
    outcome: Literal["published", "held"]
    rule: RuleId
    evaluations: tuple[UsedEvaluation, ...]
    missing: tuple[SiloId, ...]
    starting_mean_loss: DecimalString | None
    candidate_mean_loss: DecimalString | None
    published_adapter: ArtifactRef | None
