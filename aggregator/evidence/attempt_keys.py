"""The identities of attempts: made for a plan, kept in the coordinator's home alone, and destroyed.

A silo's blob opens only with the identity of its attempt and the coordinator's own together. So a
home that is stolen later opens nothing of attempts whose identities were destroyed, and what a lock
keeps in storage can be erased without touching it (`consortia storage shred`).
"""

from pathlib import Path

from aggregator.coordinator import ATTEMPT_KEYS, DESTROYED_KEYS, Coordinator
from data_contracts.errors import FederationOperatorError
from data_contracts.protocol.records.plan_terms import AdapterEncryption
from infra.encryption.identities import (
    Identity,
    keep_identity,
    load_identity,
    new_identity,
    recipients_of,
)


def round_keys(c: Coordinator, run: str, round_number: int) -> Path:
    """The folder with the identities of a round's attempts."""
    return c.settings.path(ATTEMPT_KEYS) / run / f"{round_number:04d}"


def destroyed_note(c: Coordinator, recipient: str) -> Path:
    """Where it is recorded that the identity of a recipient was destroyed."""
    return c.settings.path(DESTROYED_KEYS) / f"{recipient}.json"


def make_attempt_key(c: Coordinator, run: str, round_number: int) -> str:
    """Make the identity of an attempt that is about to be planned; returns its recipient."""
    identity = new_identity()
    keep_identity(attempt_key_file(c, run, round_number, identity.recipient), identity)
    return identity.recipient


def attempt_key(
    c: Coordinator, run: str, round_number: int, encryption: AdapterEncryption
) -> Identity:
    """The identity of an attempt; raises FederationOperatorError where this home cannot open what
    silos have sent in it, which is no silo's doing.

    One that was destroyed is not taken from a backup that came back, but it may be among
    `c.identities`, where a person gave it.
    """
    what = f"adapters of round {round_number} of {run}"
    named = encryption.coordinator_recipient
    if named not in recipients_of(c.identities):
        raise FederationOperatorError(
            what,
            expected=f"the coordinator's identity of {named} in {c.settings.home / 'keys'}",
            found="others" if c.identities else "none",
            action="bring it back from a backup: earlier identities open earlier rounds",
        )
    recipient = encryption.round_recipient
    given = next((each for each in c.identities if each.recipient == recipient), None)
    if given is not None:
        return given
    path = attempt_key_file(c, run, round_number, recipient)
    if destroyed_note(c, recipient).exists() or not path.exists():
        raise FederationOperatorError(
            what,
            expected=f"the identity of the attempt, {path}",
            found="none: it was destroyed, or it was made in another home",
            action="bring it back from a backup of the home that planned the round, or end the "
            "attempt with `consortia round abort` if it is under way: it is tried again. What was "
            "destroyed with `consortia storage shred` is erased for good",
        )
    return load_identity(path)


def attempt_key_file(c: Coordinator, run: str, round_number: int, recipient: str) -> Path:
    """Where the identity of an attempt lies."""
    return round_keys(c, run, round_number) / f"{recipient}.txt"
