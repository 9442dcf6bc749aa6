"""Who belongs to a federation and with which keys, and from which entry of the feed on.

Follows TUF's root role (The Update Framework specification, section 5.3): consecutive versions,
each signed by a threshold of the previous version's root keys and of its own. Besides that each
version says where in the feed it begins, so that at every number exactly one version governs, and
whose signatures stop counting.
"""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from data_contracts.limits import MAX_ROOT_KEYS
from data_contracts.protocol.records.base import Record
from data_contracts.protocol.wire_types import (
    Count,
    Digest,
    Instant,
    InstitutionName,
    Part,
    PublicKeyHex,
    Recipient,
    RoundNumber,
    SiloId,
)

RENEWAL_TIME = timedelta(days=30)
MAX_EARLIER = 1000
"""Versions that one names by digest, so that whoever holds it can tell a genuine older one."""


class Member(Part):
    """A silo and the Ed25519 public key that its records must be signed with.

    It takes part in rounds `first_round` to `last_round`, both included; None is no end. `name` is
    the institution's, for people who read a report. `recipient` is what adapters for this silo are
    encrypted to, where the federation encrypts them.
    """

    silo: SiloId
    public_key: PublicKeyHex
    first_round: RoundNumber = 1
    last_round: RoundNumber | None = None
    name: InstitutionName | None = None
    recipient: Annotated[Recipient | None, Field(exclude_if=lambda value: value is None)] = None

    def takes_part(self, round_number: int) -> bool:
        """Whether a plan of this round may name the silo."""
        return self.first_round <= round_number and (
            self.last_round is None or round_number <= self.last_round
        )


class Revocation(Part):
    """A key of a coordinator or silo that somebody else may hold: nothing of it counts any more.

    Of a coordinator's key the feed up to `last_feed_number` still counts, with what its plans name.
    `plan_digest` is the last plan there; on that one the close and the decision that are named here
    count, and the candidate that the decision names, and nothing else.
    """

    public_key: PublicKeyHex
    last_feed_number: Count = 0
    plan_digest: Digest | None = None
    close_digest: Digest | None = None
    decision_digest: Digest | None = None


class EarlierMembership(Part):
    """An earlier version by digest, and the entry of the feed after which it begins."""

    digest: Digest
    after_feed_number: Count


class Membership(Record):
    """One version of the federation's members and root keys.

    It governs the feed after the entry `after_feed_number` (0: from its beginning), whose digest it
    names. `coordinator_recipient` is what adapters for the coordinator are encrypted to, where the
    federation encrypts them. `retired_root_keys` were root keys of the version before and sign this
    one last.
    `earlier` are the versions before this one, newest first, and `revoked` all keys that this or an
    earlier one revoked, oldest first: who holds one version knows what became of the others.
    """

    kind: ClassVar[str] = "membership"
    max_payload_bytes: ClassVar[int] = 1024 * 1024
    max_signatures: ClassVar[int] = 2 * MAX_ROOT_KEYS
    added_fields: ClassVar[tuple[str, ...]] = ("coordinator_recipient",)

    number: Annotated[int, Field(ge=1, le=999_999)]
    previous_digest: Digest | None
    earlier: Annotated[tuple[EarlierMembership, ...], Field(max_length=MAX_EARLIER)] = ()
    expires_at: Instant
    root_keys: Annotated[tuple[PublicKeyHex, ...], Field(min_length=1, max_length=MAX_ROOT_KEYS)]
    root_threshold: Annotated[int, Field(ge=1, le=MAX_ROOT_KEYS)]
    retired_root_keys: Annotated[tuple[PublicKeyHex, ...], Field(max_length=MAX_ROOT_KEYS)] = ()
    coordinator_key: PublicKeyHex
    coordinator_recipient: Recipient | None = None
    silos: tuple[Member, ...]
    after_feed_number: Count = 0
    after_feed_digest: Digest | None = None
    revoked: Annotated[tuple[Revocation, ...], Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def _keys_are_distinct(self) -> "Membership":
        roots = (*self.root_keys, *self.retired_root_keys)
        if len(set(roots)) != len(roots):
            raise ValueError("root_keys and retired_root_keys must be distinct")
        if self.root_threshold > len(self.root_keys):
            raise ValueError("root_threshold is larger than the number of root_keys")
        names = [member.silo for member in self.silos]
        keys = [member.public_key for member in self.silos] + [self.coordinator_key]
        if len(set(names)) != len(names) or len(set(keys)) != len(keys):
            raise ValueError("silos and keys must be distinct")
        given = [m.recipient for m in self.silos] + [self.coordinator_recipient]
        recipients = [recipient for recipient in given if recipient is not None]
        if len(set(recipients)) != len(recipients):
            raise ValueError("recipients must be distinct")
        called = [self.name_of(name) for name in names]
        if len({name.casefold() for name in called}) != len(called):
            raise ValueError("names of institutions must be distinct")
        return self

    @model_validator(mode="after")
    def _place_is_consistent(self) -> "Membership":
        if (self.number == 1) != (self.previous_digest is None):
            raise ValueError("the first membership, and no other, has no previous_digest")
        names_previous = [entry.digest for entry in self.earlier[:1]] == [self.previous_digest]
        if len(self.earlier) != min(self.number - 1, MAX_EARLIER) or not (
            self.number == 1 or names_previous
        ):
            raise ValueError("earlier names every version before this one")
        if (self.after_feed_number == 0) != (self.after_feed_digest is None):
            raise ValueError("after_feed_digest is that of the entry after_feed_number, if any")
        if self.number == 1 and (self.after_feed_number or self.retired_root_keys or self.revoked):
            raise ValueError("the first membership follows nothing")
        return self

    @model_validator(mode="after")
    def _revocations_are_consistent(self) -> "Membership":
        revoked = [entry.public_key for entry in self.revoked]
        active = {member.public_key for member in self.silos} | {self.coordinator_key}
        if len(set(revoked)) != len(revoked) or active & set(revoked):
            raise ValueError("revoked keys must be distinct and nobody's")
        for entry in self.revoked:
            named = (entry.plan_digest, entry.close_digest, entry.decision_digest)
            if any(b is not None and a is None for a, b in pairwise(named)):
                raise ValueError("a decision that counts rests on a close, and that on a plan")
            if entry.last_feed_number > self.after_feed_number:
                raise ValueError("what counts of a revoked key ends where this version begins")
        return self

    def expires_soon(self, now: datetime) -> bool:
        """Whether it is time to sign the next version, which needs the root keys."""
        return self.expires_at - now < RENEWAL_TIME

    def vouches_for(self, digest: str) -> bool:
        """Whether a membership with this digest is an earlier version of this one."""
        return any(entry.digest == digest for entry in self.earlier)

    def end_of(self, digest: str) -> int | None:
        """The last entry of the feed that the version with this digest governs, as far as this one
        knows: None for itself, which has no end yet, and for a stranger."""
        beginnings = [self.after_feed_number, *(e.after_feed_number for e in self.earlier)]
        digests = [entry.digest for entry in self.earlier]
        return beginnings[digests.index(digest)] if digest in digests else None

    def key_of(self, silo: str) -> str | None:
        """Public key of `silo`, or None when it is not a member."""
        return next((m.public_key for m in self.silos if m.silo == silo), None)

    def recipient_of(self, silo: str) -> str | None:
        """What adapters for `silo` are encrypted to; None where the membership names nothing."""
        return next((m.recipient for m in self.silos if m.silo == silo), None)

    def name_of(self, silo: str) -> str:
        """What people call the institution: its name, or the id of the silo."""
        return next((m.name for m in self.silos if m.silo == silo and m.name), silo)

    def silos_of_round(self, round_number: int) -> tuple[str, ...]:
        """The silos that take part in a round, in the order of the record."""
        return tuple(m.silo for m in self.silos if m.takes_part(round_number))
