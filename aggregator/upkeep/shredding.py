"""Erasing what silos sent in a round without touching what is locked: its attempts' identities go.

What is opened of the round on this disk goes first. Then, for each attempt: its identity is
overwritten, synced and removed, and after that a signed record in the home says so, for good.
Killed anywhere, the next run goes on. The published adapter, records and reports are not encrypted
to these identities, and stay.
"""

from dataclasses import dataclass
from typing import ClassVar

from aggregator.coordinator import Coordinator
from aggregator.evidence.attempt_keys import attempt_key_file, destroyed_note
from aggregator.evidence.spool import opened_directory
from aggregator.feed.claims import signing_key
from aggregator.upkeep.disk_pruning import IN_USE_NAME
from aggregator.upkeep.past_rounds import past_attempts
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.envelope import Verified, seal, verify
from data_contracts.protocol.records import RoundPlan, RoundRecord
from data_contracts.protocol.trusted_feed import TrustedFeed
from data_contracts.protocol.wire_types import Recipient
from infra.disk.durable_files import write_durably
from infra.disk.file_lock import held_alone
from infra.disk.own_files import remove_all
from infra.encryption.identities import destroy_identity


class DestroyedKey(RoundRecord):
    """The identity of an attempt was destroyed in this home; `was_here`: it lay there until then.

    Kept in the home alone; it is no evidence towards others.
    """

    kind: ClassVar[str] = "destroyed-key"

    recipient: Recipient
    was_here: bool


@dataclass(frozen=True)
class ShreddedRound:
    """Records of a round's attempts, newest first; `files` with plain adapters went besides."""

    records: tuple[DestroyedKey, ...]
    files: int


def encrypted_attempts(
    c: Coordinator, feed: TrustedFeed, run: str, round_number: int
) -> list[tuple[Verified[RoundPlan], str]]:
    """Plans of a round that is over with the recipients of their attempts, newest first.

    Raises FederationOperatorError where none of them encrypts.
    """
    plans = past_attempts(c, feed, run, round_number)
    found = [(p, p.record.encryption.round_recipient) for p in plans if p.record.encryption]
    if not found:
        raise FederationOperatorError(
            f"round {round_number} of {run}",
            expected="a round whose plan encrypts adapters",
            found="one that does not: what silos sent lies there as it is",
            action="let the storage's operator erase the versions, see docs/storage.md",
        )
    return found


def shred_round(c: Coordinator, feed: TrustedFeed, run: str, round_number: int) -> ShreddedRound:
    """Destroy the identities of a round's attempts, and what is opened of them here.

    Raises FederationOperatorError as `encrypted_attempts`, and while a command uses the workspace.
    """
    attempts = encrypted_attempts(c, feed, run, round_number)
    c.workspace.mkdir(parents=True, exist_ok=True)
    refusal = FederationOperatorError(
        f"workspace {c.workspace}",
        expected="no command that opens adapters of a round",
        found="one that runs",
        action="wait until contributions are measured, then run the command again",
    )
    with held_alone(c.workspace / IN_USE_NAME, refusal):
        opened = [opened_directory(c, plan.digest) for plan, _ in attempts]
        removed = remove_all([path for path in opened if path.exists()])
        if removed.refused:
            raise FederationOperatorError(
                "plain adapters of the round",
                expected="to remove them",
                found=removed.refused[0],
                action="remove them yourself, then run it again: nothing was destroyed yet",
            )
        records = [_destroyed(c, feed, plan, recipient) for plan, recipient in attempts]
    return ShreddedRound(tuple(records), removed.usage.files)


def destroyed_keys(c: Coordinator, feed: TrustedFeed) -> list[DestroyedKey]:
    """Every one that is recorded in this home, by round and attempt."""
    keys = {m.record.coordinator_key for m in feed.memberships}
    files = sorted(destroyed_note(c, "").parent.glob("age1*.json"))
    found = [verify(path.read_bytes(), DestroyedKey, keys).record for path in files]
    return sorted(found, key=lambda record: (record.run, record.round, record.attempt))


def _destroyed(
    c: Coordinator, feed: TrustedFeed, plan: Verified[RoundPlan], recipient: str
) -> DestroyedKey:
    path = attempt_key_file(c, plan.record.run, plan.record.round, recipient)
    note = destroyed_note(c, recipient)
    was_here = path.exists()
    if was_here:
        destroy_identity(path)
    keys = {m.record.coordinator_key for m in feed.memberships}
    if note.exists():
        return verify(note.read_bytes(), DestroyedKey, keys).record
    signer = signing_key(c, feed.membership.record)
    record = DestroyedKey.on(plan, c.clock.now(), recipient=recipient, was_here=was_here)
    write_durably(note, seal(record, signer).envelope)
    return record
