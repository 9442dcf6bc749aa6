"""A silo's secrets of one attempt, shared among the others, and the coordinator's list of them."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from data_contracts.protocol.records.mask_keys import Relayed
from data_contracts.protocol.records.masking_terms import MOST_MASKED_SILOS
from data_contracts.protocol.records.round_record import RoundRecord, SiloRecord
from data_contracts.protocol.wire_types import Digest, Part, SealedHex, SiloId


class SealedShare(Part):
    """For one silo a share of the mask seed and one of the self seed, sealed for it alone, and what
    commits to each: SHA-256 of the share with what it is and whose."""

    holder: SiloId
    box: SealedHex
    mask_commitment: Digest
    self_commitment: Digest


class SealedShares(SiloRecord):
    """Shares for every silo of the roster, this one among them; `self_seed` commits to the self
    seed itself."""

    kind: ClassVar[str] = "sealed-shares"

    roster_digest: Digest
    self_seed: Digest
    shares: Annotated[tuple[SealedShare, ...], Field(min_length=1, max_length=MOST_MASKED_SILOS)]

    @model_validator(mode="after")
    def _has_one_each(self) -> "SealedShares":
        holders = [share.holder for share in self.shares]
        if len(set(holders)) != len(holders):
            raise ValueError("shares must be for distinct silos")
        return self


class ShareBook(RoundRecord):
    """The sealed shares of every silo whose payload counts if it comes, each under its signature.

    Pads are between these silos and no others.
    """

    kind: ClassVar[str] = "share-book"
    table_fields: ClassVar[tuple[str, ...]] = ("shares",)

    roster_digest: Digest
    shares: Relayed
