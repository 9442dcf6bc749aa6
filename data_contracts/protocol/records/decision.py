"""Whether the candidate is published, by which rule, and on whose evaluations."""

from typing import ClassVar, Literal

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.records.round_record import RoundRecord
from data_contracts.protocol.wire_types import DecimalString, Digest, RuleId, SiloId


class Decision(RoundRecord):
    """`published_adapter` is the adapter that later rounds start from, whatever the outcome.

    `evaluations` are those that counted, as the ledger keeps them.
    """

    kind: ClassVar[str] = "decision"
    table_fields: ClassVar[tuple[str, ...]] = ("evaluations", "missing")

    candidate_digest: Digest
    outcome: Literal["published", "held"]
    rule: RuleId
    evaluations: tuple[EvidenceRef, ...]
    missing: tuple[SiloId, ...]
    starting_mean_loss: DecimalString | None
    candidate_mean_loss: DecimalString | None
    published_adapter: ArtifactRef | None
