"""A silo's word on which payloads are summed, and the coordinator's list of such words."""

from typing import ClassVar

from data_contracts.protocol.records.mask_keys import Relayed
from data_contracts.protocol.records.round_record import RoundRecord, SiloRecord
from data_contracts.protocol.wire_types import Digest


class Countersignature(SiloRecord):
    """This silo has seen this close record and this share book, and signs no other in the attempt.

    Nobody reveals a share before `threshold` silos have said the same.
    """

    kind: ClassVar[str] = "countersignature"

    close_digest: Digest
    book_digest: Digest


class CountersignedClose(RoundRecord):
    """Countersignatures of one close record, each under the signature of its silo."""

    kind: ClassVar[str] = "countersigned-close"
    table_fields: ClassVar[tuple[str, ...]] = ("countersignatures",)

    close_digest: Digest
    book_digest: Digest
    countersignatures: Relayed
