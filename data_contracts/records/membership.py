"""Who belongs to a federation and with which keys.

Follows TUF's root role (The Update Framework specification, section 5.3): consecutive versions,
each signed by a threshold of the previous version's root keys and of its own.
"""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from data_contracts.records.base import Record
from data_contracts.wire_types import Digest, Instant, Part, PublicKeyHex, SiloId


class Member(Part):
    """A silo and the Ed25519 public key that its records must be signed with."""

    silo: SiloId
    public_key: PublicKeyHex


class Membership(Record):
    """One version of the federation's members and root keys."""

    kind: ClassVar[str] = "membership"
    max_signatures: ClassVar[int] = 16

    number: Annotated[int, Field(ge=1, le=999_999)]
    previous_digest: Digest | None
    expires_at: Instant
    root_keys: Annotated[tuple[PublicKeyHex, ...], Field(min_length=1, max_length=16)]
    root_threshold: Annotated[int, Field(ge=1, le=16)]
    coordinator_key: PublicKeyHex
    silos: tuple[Member, ...]

    @model_validator(mode="after")
    def _keys_are_distinct(self) -> "Membership":
        if len(set(self.root_keys)) != len(self.root_keys):
            raise ValueError("root_keys must be distinct")
        if self.root_threshold > len(self.root_keys):
            raise ValueError("root_threshold is larger than the number of root_keys")
        names = [member.silo for member in self.silos]
        keys = [member.public_key for member in self.silos] + [self.coordinator_key]
        if len(set(names)) != len(names) or len(set(keys)) != len(keys):
            raise ValueError("silos and keys must be distinct")
        return self

    def key_of(self, silo: str) -> str | None:
        """Public key of `silo`, or None when it is not a member."""
        return next((m.public_key for m in self.silos if m.silo == silo), None)
