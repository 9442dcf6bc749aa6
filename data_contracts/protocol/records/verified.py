"""A record with its proof; only `envelope`, the one door between bytes and records, makes any."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from data_contracts.protocol.records.base import Record

HeldT = TypeVar("HeldT", bound=Record, covariant=True)


@dataclass(frozen=True)
class Verified(Generic[HeldT]):
    """A record that passed `envelope.verify`, with the bytes it came from: envelope, and table.

    `digest` is that of the envelope alone, which names the table's.
    """

    record: HeldT
    digest: str
    envelope: bytes
