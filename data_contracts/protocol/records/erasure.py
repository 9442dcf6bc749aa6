"""What is taken out of a federation's adapters again: whose part, and what is had again without.

An entry of the feed, so that every silo reads it in its place, and a certificate of what came of
it.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from data_contracts.protocol.artifact import ArtifactRef
from data_contracts.protocol.records.base import Record
from data_contracts.protocol.records.plan_terms import ErasureRef
from data_contracts.protocol.records.round_record import RoundRecord
from data_contracts.protocol.records.round_report import PageRef
from data_contracts.protocol.wire_types import (
    Count,
    Digest,
    Instant,
    Part,
    PositiveCount,
    ProgramVersion,
    RoundNumber,
    RunId,
    SiloId,
    Text,
)

ErasureMethod = Literal["replay"]
"""`replay`: the rounds are trained and merged again by the others, from an adapter without the part
(retraining from a checkpoint, Bourtoule et al. 2021, arXiv:1912.03817)."""

MAX_REVOKED = 6_000
MAX_REPLAYED = 2_000


class ReplayedRound(Part):
    """A round that is had again: its plan in the feed, and what it had published; None where it was
    held."""

    run: RunId
    round: RoundNumber
    feed_number: PositiveCount
    plan_digest: Digest
    published: Digest | None


class Erasure(Record):
    """`silo` is taken out of everything from `from_round` of `from_run` on, where it first counted.

    `revoked` are digests of plain adapters, residuals and optimizer states, sorted: its part is in
    them, and no plan that counts starts from one again. The run `replay_run` goes on from
    `starting_adapter` (None: from the seed) with the rounds `replayed`, in their order, each
    by its own old plan. `seed_offset` is added to the seed of each: 0 repeats the training of the
    others to the bit, as a federation would have had it that never had the silo. `previous`
    is the erasure before this one; `membership_digest` the membership that governs the entry.
    """

    kind: ClassVar[str] = "erasure"
    max_payload_bytes: ClassVar[int] = 1024 * 1024

    feed_number: PositiveCount
    previous_digest: Digest | None
    membership_number: PositiveCount
    membership_digest: Digest
    previous: ErasureRef | None
    silo: SiloId
    method: ErasureMethod
    from_run: RunId
    from_round: RoundNumber
    revoked: Annotated[tuple[Digest, ...], Field(min_length=1, max_length=MAX_REVOKED)]
    starting_adapter: ArtifactRef | None
    replay_run: RunId
    replayed: Annotated[tuple[ReplayedRound, ...], Field(min_length=1, max_length=MAX_REPLAYED)]
    seed_offset: Count
    program: ProgramVersion

    @model_validator(mode="after")
    def _is_in_order(self) -> "Erasure":
        if list(self.revoked) != sorted(set(self.revoked)):
            raise ValueError("revoked must be sorted, each digest once")
        rounds = [entry.round for entry in self.replayed]
        if rounds != sorted(set(rounds)):
            raise ValueError("replayed must be in the order of the rounds, each once")
        if self.starting_adapter is not None and self.starting_adapter.digest in self.revoked:
            raise ValueError("what is gone on from must not be revoked")
        return self

    def replayed_round(self, number: int) -> ReplayedRound | None:
        """The entry of a round; None for one that is not replayed."""
        return next((entry for entry in self.replayed if entry.round == number), None)

    def round_after(self, number: int) -> int:
        """The first round of the list after `number`; after the last one, the next number."""
        return next((entry.round for entry in self.replayed if entry.round > number), number + 1)


class RenewedRound(Part):
    """What a round had published, and what its replay published; None where it was held."""

    round: RoundNumber
    plan_digest: Digest
    old: Digest | None
    new: Digest | None


class WhatStays(Part):
    """What is left of the silo's part: `what`, `where`, and `until` when something keeps it there;
    None: as long as whoever has it wants."""

    what: Text
    where: Text
    until: Instant | None


class ErasureCertificate(RoundRecord):
    """Signed on the plan of the last replayed round, when that is over: from it on, this holds.

    `new_adapter` is what is in force then; None where nothing has been published since the seed.
    `tokens_again`: on how many tokens the others have trained for it. `has_other_seeds`: training
    drew other numbers than in the old rounds, so that the two do not compare silo by silo. `page`
    is the page that its signer made of it.
    """

    kind: ClassVar[str] = "erasure-certificate"
    table_fields: ClassVar[tuple[str, ...]] = ("rounds",)

    erasure_digest: Digest
    erased_silo: SiloId
    method: ErasureMethod
    revoked_adapter: Digest | None
    new_adapter: ArtifactRef | None
    rounds: Annotated[tuple[RenewedRound, ...], Field(min_length=1, max_length=MAX_REPLAYED)]
    tokens_again: Count
    stays: Annotated[tuple[WhatStays, ...], Field(max_length=100)]
    has_other_seeds: bool
    page: PageRef | None = None
    program: ProgramVersion
