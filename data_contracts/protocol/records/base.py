"""What every record has in common: frozen, versioned, closed."""

from typing import ClassVar, Literal, TypeVar

from data_contracts.protocol.wire_types import FederationId, Instant, Part

WIRE_VERSION = 2
"""Of every record; a release reads one version. Version 1 was never released."""


class Record(Part):
    """A statement that one party signs and another verifies."""

    kind: ClassVar[str]
    max_payload_bytes: ClassVar[int] = 256 * 1024
    table_fields: ClassVar[tuple[str, ...]] = ()
    """Fields with a row for each silo or module: they travel in a table that the signed payload
    names by digest and size, so that the payload does not grow with the federation."""
    added_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that earlier releases did not write: where one is None it is no part of what is
    signed, so that their records still verify, byte for byte."""
    max_signatures: ClassVar[int] = 1
    """One signer per record, so that nobody can add a signature and so make a second envelope."""

    version: Literal[2] = 2
    federation: FederationId
    issued_at: Instant

    @classmethod
    def payload_type(cls) -> str:
        """The DSSE payload type; one per kind, so that no record passes as another."""
        return f"application/vnd.consortia.{cls.kind}.v{WIRE_VERSION}+json"


RecordT = TypeVar("RecordT", bound=Record)
