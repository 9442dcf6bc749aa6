"""The coordinator's decision on every silo of the cohort; all later records follow from it."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.evidence_ref import EvidenceRef
from data_contracts.protocol.records.round_record import RoundRecord
from data_contracts.protocol.wire_types import (
    DecimalString,
    Digest,
    Part,
    PositiveCount,
    RuleId,
    SiloId,
)


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


class Likeness(Part):
    """The change of `silo` is a copy, by the cosine between the two: 1 is the very same.

    `like` is the silo whose change it is most alike; None stands for the starting adapter. Which of
    two is the copy nobody can tell from this.
    """

    silo: SiloId
    like: SiloId | None
    cosine: DecimalString


class Close(RoundRecord):
    """Every silo of the cohort is in exactly one of the four lists.

    `held` is all that was judged, as the ledger keeps it: every record that was read, and the
    adapters of the admitted, by the bytes that lie in storage. `alike`: the copies among what would
    have counted; None without any.
    """

    kind: ClassVar[str] = "close"
    table_fields: ClassVar[tuple[str, ...]] = (
        "admitted",
        "rejected",
        "refused",
        "missing",
        "held",
    )
    added_fields: ClassVar[tuple[str, ...]] = ("alike",)

    admitted: Annotated[tuple[Admitted, ...], Field(max_length=1000)]
    rejected: Annotated[tuple[Rejected, ...], Field(max_length=1000)]
    refused: Annotated[tuple[Refused, ...], Field(max_length=1000)]
    missing: Annotated[tuple[SiloId, ...], Field(max_length=1000)]
    held: Annotated[tuple[EvidenceRef, ...], Field(max_length=5000)]
    alike: Annotated[tuple[Likeness, ...], Field(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _holds_what_it_rests_on(self) -> "Close":
        held = {(ref.silo, ref.digest) for ref in self.held}
        named = {(a.silo, a.adapter.stored.digest) for a in self.admitted}
        named |= {(a.silo, a.submission_digest) for a in self.admitted}
        named |= {(a.silo, a.verdict_digest) for a in self.admitted}
        named |= {(r.silo, r.record_digest) for r in self.refused}
        if not named <= held:
            raise ValueError("held must name what every admitted and refused silo is judged by")
        return self
