"""The shares that open a sum: of each silo one of the two kinds, never both."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, model_validator

from data_contracts.protocol.records.masking_terms import MOST_MASKED_SILOS
from data_contracts.protocol.records.round_record import SiloRecord
from data_contracts.protocol.wire_types import Digest, Part, SiloId

ShareHex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Secret = Literal["mask_seed", "self_seed"]


class RevealedShare(Part):
    """This silo's share of a secret of `owner`: of its self seed where its payload is summed, of
    its mask seed where it is not."""

    owner: SiloId
    secret: Secret
    share: ShareHex


class RevealedShares(SiloRecord):
    """What this silo reveals in this attempt, once, on a countersigned close."""

    kind: ClassVar[str] = "revealed-shares"

    close_digest: Digest
    countersigned_digest: Digest
    shares: Annotated[tuple[RevealedShare, ...], Field(min_length=1, max_length=MOST_MASKED_SILOS)]

    @model_validator(mode="after")
    def _is_never_both(self) -> "RevealedShares":
        owners = [share.owner for share in self.shares]
        if len(set(owners)) != len(owners):
            raise ValueError("of one silo's secrets only one share may be revealed")
        return self
