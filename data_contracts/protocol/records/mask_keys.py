"""The fresh keys of one attempt in confidential mode, and the coordinator's list of them."""

from typing import Annotated, ClassVar

from pydantic import Field

from data_contracts.protocol.records.masking_terms import MOST_MASKED_SILOS
from data_contracts.protocol.records.round_record import RoundRecord, SiloRecord
from data_contracts.protocol.wire_types import Part, PublicX25519Hex, RelayedText, SiloId


class MaskKeys(SiloRecord):
    """Two X25519 public keys (RFC 7748) that this silo made for this attempt alone.

    From `mask_key` the pads that two silos share are derived, under `sealing_key` the other silos
    seal what only this one may read.
    """

    kind: ClassVar[str] = "mask-keys"

    mask_key: PublicX25519Hex
    sealing_key: PublicX25519Hex


class RelayedRecord(Part):
    """Another silo's signed record, passed on as it was signed: silos read no inbox but theirs."""

    silo: SiloId
    envelope: RelayedText


Relayed = Annotated[tuple[RelayedRecord, ...], Field(max_length=MOST_MASKED_SILOS)]


class MaskRoster(RoundRecord):
    """The mask keys of every silo that takes part from here on, each under its own signature."""

    kind: ClassVar[str] = "mask-roster"
    table_fields: ClassVar[tuple[str, ...]] = ("keys",)

    keys: Relayed
