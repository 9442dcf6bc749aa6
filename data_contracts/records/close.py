"""The coordinator's decision on every silo of the cohort; all later records follow from it."""

from typing import Annotated, ClassVar

from pydantic import Field

from data_contracts.artifact import ArtifactRef
from data_contracts.records.base import RoundRecord
from data_contracts.wire_types import Digest, Part, PositiveCount, RuleId, SiloId


class Admitted(Part):
    """A submission that counts. `weight` is tokens after the plan's caps; weights are relative."""

    silo: SiloId
    submission_digest: Digest
    verdict_digest: Digest
    adapter: ArtifactRef
    weight: PositiveCount


class Rejected(Part):
    """A submission or inbox that does not count, and the rule that objected."""

    silo: SiloId
    submission_digest: Digest | None
    rule: RuleId


class Refused(Part):
    """A silo that declined with a signed record: a refusal or a failed verdict."""

    silo: SiloId
    record_digest: Digest
    rule: RuleId


class Close(RoundRecord):
    """Every silo of the cohort is in exactly one of the four lists."""

    kind: ClassVar[str] = "close"
    table_fields: ClassVar[tuple[str, ...]] = ("admitted", "rejected", "refused", "missing")

    admitted: Annotated[tuple[Admitted, ...], Field(max_length=1000)]
    rejected: Annotated[tuple[Rejected, ...], Field(max_length=1000)]
    refused: Annotated[tuple[Refused, ...], Field(max_length=1000)]
    missing: Annotated[tuple[SiloId, ...], Field(max_length=1000)]
