"""A silo's data contract as silo and coordinator agreed to it: one statement, two signatures.

The contract itself may stay between the two; what others see is its digest in a round plan.
"""

from typing import ClassVar

from data_contracts.protocol.records.base import Record
from data_contracts.protocol.wire_types import Digest, Instant, Line, SiloId, Text


class ContractAgreement(Record):
    """Says that `silo` and coordinator agreed to the contract file with this digest.

    `issued_at` is when the first of them signed; `contract_name` is the contract's own.
    """

    kind: ClassVar[str] = "contract-agreement"
    max_signatures: ClassVar[int] = 2

    silo: SiloId
    contract_id: Text
    contract_version: Text
    contract_name: Line | None = None
    contract_digest: Digest
    expires_at: Instant
