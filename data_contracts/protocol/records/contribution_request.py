"""The coordinator asks the silos to measure the merges of coalitions on their held-out records.

A coalition of one is that silo's own adapter, and every silo can read it, so a request is made only
where every silo in it has accepted with `shares_individual_delta`.
"""

from collections.abc import Collection, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints, model_validator

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.round_record import RoundRecord
from data_contracts.protocol.wire_types import Digest, Instant, Part, SiloId

MAX_COALITIONS = 1024
"""Every subset of ten silos, or each of a thousand left out once."""

MemberDigits = Annotated[str, StringConstraints(pattern=r"^[01]{1,1000}$")]


class CoalitionAdapter(Part):
    """The merge of a coalition. `members` has a 1 for each of the request's silos that is in it.

    `adapter` None is the base model: only nobody's coalition, before anything was published.
    """

    members: MemberDigits
    adapter: ArtifactRef | None
    residual: ArtifactRef | None = None

    @model_validator(mode="after")
    def _members_have_an_adapter(self) -> "CoalitionAdapter":
        if self.adapter is None and ("1" in self.members or self.residual is not None):
            raise ValueError("a coalition with members or a residual has an adapter")
        return self


class ContributionRequest(RoundRecord):
    """What to measure, and until when an answer counts; `silos` are the admitted ones, sorted.

    One for an attempt: silos answer one request and no second one.
    """

    kind: ClassVar[str] = "contribution-request"
    table_fields: ClassVar[tuple[str, ...]] = ("coalitions",)

    close_digest: Digest
    silos: Annotated[tuple[SiloId, ...], Field(min_length=1, max_length=1000)]
    coalitions: Annotated[
        tuple[CoalitionAdapter, ...], Field(min_length=1, max_length=MAX_COALITIONS)
    ]
    answer_by: Instant

    @model_validator(mode="after")
    def _is_consistent(self) -> "ContributionRequest":
        if list(self.silos) != sorted(set(self.silos)):
            raise ValueError("silos must be distinct and sorted")
        members = [coalition.members for coalition in self.coalitions]
        if any(len(digits) != len(self.silos) for digits in members):
            raise ValueError("members must have one digit for each silo")
        if len(set(members)) != len(members):
            raise ValueError("coalitions must be distinct")
        if not self.issued_at < self.answer_by:
            raise ValueError("expected issued_at < answer_by")
        return self

    def coalition_silos(self) -> tuple[frozenset[str], ...]:
        """The silos of each coalition, in the order of the coalitions."""
        return tuple(
            frozenset(s for s, digit in zip(self.silos, c.members, strict=True) if digit == "1")
            for c in self.coalitions
        )


def member_digits(silos: Sequence[str], members: Collection[str]) -> str:
    """One digit for each of `silos`: 1 for those in `members`."""
    return "".join("1" if silo in members else "0" for silo in silos)
