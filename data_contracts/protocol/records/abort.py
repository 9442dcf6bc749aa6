"""Ends an attempt without a model; a retry is the next attempt."""

from typing import ClassVar

from data_contracts.protocol.records.round_record import RoundRecord
from data_contracts.protocol.wire_types import Digest, PositiveCount, RuleId, Text


class Abort(RoundRecord):
    """Takes the next number of the feed, so that every silo sees that the attempt is over."""

    kind: ClassVar[str] = "abort"

    feed_number: PositiveCount
    previous_digest: Digest | None
    rule: RuleId
    reason: Text
