"""A silo's answer to a contribution request: losses on its own held-out data."""

from typing import Annotated, ClassVar

from pydantic import Field

from data_contracts.protocol.records.contribution_request import MAX_COALITIONS
from data_contracts.protocol.records.round_record import SiloRecord
from data_contracts.protocol.wire_types import DecimalString, Digest, PositiveCount

Loss = Annotated[DecimalString, Field(ge=0)]


class CoalitionLosses(SiloRecord):
    """Mean negative log-likelihood in nats per answer token, in the order of the request.

    `tokens` are the answer tokens of the held-out split, the same for every coalition.
    """

    kind: ClassVar[str] = "coalition-losses"

    request_digest: Digest
    tokens: PositiveCount
    losses: Annotated[tuple[Loss, ...], Field(min_length=1, max_length=MAX_COALITIONS)]
